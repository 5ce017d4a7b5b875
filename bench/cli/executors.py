"""The options that say where a run is computed, and the executor they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bench.orchestration import Executor
    from bench.orchestration.ray_cluster import RayOptions

NAMES = ("local", "ray")
_PANEL = "On a cluster (docs/scale.md)"

ExecutorName = Annotated[
    str,
    typer.Option(
        "--executor", help="local (this process) or ray (pip install 'ribench[ray]').", rich_help_panel=_PANEL
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        help="HOST:PORT of a Ray cluster, or auto. [default: RAY_ADDRESS, else this machine]",
        rich_help_panel=_PANEL,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", help="Worker processes. [default: as many as fit]", rich_help_panel=_PANEL),
]
CpusPerWorker = Annotated[
    int | None,
    typer.Option(
        "--cpus-per-worker", help="CPUs of a worker, and its threads of torch. [default: 1]", rich_help_panel=_PANEL
    ),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-worker", help="GPUs of a worker; 0.5: two share one. [default: 1 if any]", rich_help_panel=_PANEL
    ),
]


def ray_options(
    executor: str,
    address: str | None,
    workers: int | None,
    cpus_per_worker: int | None,
    gpus_per_worker: float | None,
    device: str,
) -> RayOptions | None:
    """The options of the Ray executor, None for the local one; raises BenchError for what does not go together."""
    from bench.core.errors import BenchError
    from bench.core.names import unknown_name

    if executor not in NAMES:
        raise unknown_name(executor, NAMES, "executor")
    given = {
        "--ray-address": address,
        "--workers": workers,
        "--cpus-per-worker": cpus_per_worker,
        "--gpus-per-worker": gpus_per_worker,
    }
    idle = [option for option, value in given.items() if value is not None]
    if executor == "local":
        if idle:
            raise BenchError(f"{idle[0]} is for --executor ray.")
        return None
    from bench.orchestration.ray_cluster import RayOptions

    return RayOptions(address, workers, 1 if cpus_per_worker is None else cpus_per_worker, gpus_per_worker, device)


def executor_for(options: RayOptions | None) -> Executor:
    """The executor, not open yet; raises BenchError when Ray is not installed."""
    if options is None:
        from bench.orchestration import LocalExecutor

        return LocalExecutor()
    from bench.orchestration.ray_executor import RayExecutor

    return RayExecutor(options)
