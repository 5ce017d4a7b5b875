"""The executor of a name, with what it is to use."""

from __future__ import annotations

from bench.core.errors import BenchError
from bench.core.names import require_known
from bench.executors.base import Executor
from bench.executors.local_pool import LocalPool

NAMES = ("local", "ray")


def choose_executor(
    name: str,
    device: str = "auto",
    *,
    ray_address: str | None = None,
    workers: int | None = None,
    cpus_per_worker: int | None = None,
    gpus_per_worker: float | None = None,
) -> Executor:
    """The executor, not open yet.

    Args:
        name: `local` or `ray`.
        workers: processes, this one included where they are local; None: as many as fit, where it pays.
        ray_address, cpus_per_worker, gpus_per_worker: for Ray alone, see bench.executors.ray_cluster.

    Raises:
        BenchError: an unknown name, options that do not go together, or Ray is not installed.
    """
    require_known(name, NAMES, "executor")
    if name == "local":
        given = {"ray_address": ray_address, "cpus_per_worker": cpus_per_worker, "gpus_per_worker": gpus_per_worker}
        for option, value in given.items():
            if value is not None:
                raise BenchError(f"{option} is for the executor ray; the local one does not take it.", option=option)
        return LocalPool(workers)
    from bench.executors.ray_cluster import RayOptions
    from bench.executors.ray_executor import RayExecutor

    cpus = 1 if cpus_per_worker is None else cpus_per_worker
    return RayExecutor(RayOptions(ray_address, workers, cpus, gpus_per_worker, device=device))
