"""The options that say where runs are computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bench.executors.base import Executor

_option = partial(typer.Option, rich_help_panel="Side by side, or on a cluster (docs/scale.md)")


@dataclass(frozen=True)
class ExecutorOptions:
    """Where runs are computed."""

    executor: Annotated[
        str, _option("--executor", help="local (this machine) or ray (pip install 'ribench[ray]').")
    ] = "local"
    ray_address: Annotated[
        str | None,
        _option("--ray-address", help="HOST:PORT of a Ray cluster, or auto. [default: RAY_ADDRESS, else this machine]"),
    ] = None
    workers: Annotated[
        int | None, _option("--workers", help="Processes that compute side by side. [default: as many as fit]")
    ] = None
    cpus_per_worker: Annotated[
        int | None, _option("--cpus-per-worker", help="CPUs of a worker, and its threads of torch. [default: 1]")
    ] = None
    gpus_per_worker: Annotated[
        float | None, _option("--gpus-per-worker", help="GPUs of a worker; 0.5: two share one. [default: 1 if any]")
    ] = None

    def choose(self, device: str) -> Executor:
        """The executor, not open yet; raises BenchError for what does not go together, or where Ray is missing."""
        from bench.executors.choose import choose_executor

        options = asdict(self)
        return choose_executor(options.pop("executor"), device, **options)


@contextmanager
def at_work(executor: Executor) -> Iterator[None]:
    """Open while its runs are computed; joining a cluster takes seconds, so it is said."""
    from bench.cli.output.rendering import messages

    with ExitStack() as stack:
        with messages().status(f"Starting the {executor.stats().name} executor"):
            stack.enter_context(executor)
        yield
