"""Processes beside the tests': made from one that has loaded torch already, and looked at."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from bench.cli.main import main
from bench.executors import unit_worker
from bench.protocols import base
from bench.runs.plan import RunPlan, WorkUnit
from bench.runs.units import FinishedUnit

UNIT = 12
multiprocessing.set_forkserver_preload(
    ["bench.cli.commands.run", "bench.cli.commands.train", "bench.runs.execute", "bench.executors.local_pool", "pandas"]
)


class ForkedProcess(ForkServerProcess):
    def start(self) -> None:
        with _no_script():  # pytest need not be loaded there
            super().start()


class ForkedContext(ForkServerContext):
    """In place of that of a helper, which starts an interpreter: for tests of something else."""

    started: ForkedProcess | None = None

    def Process(self, *arguments: Any, **options: Any) -> ForkedProcess:  # type: ignore[override]  # noqa: N802
        self.started = ForkedProcess(*arguments, **options)
        return self.started


@contextmanager
def _no_script() -> Iterator[None]:
    script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def start_bench(
    *arguments: object, output: str | Path = os.devnull, first: Callable[[], None] | None = None
) -> ForkedProcess:
    """The `bench` command in a process of its own, which calls `first` before it."""
    words = [str(argument) for argument in arguments]
    process = ForkedProcess(target=_bench, args=(words, str(output), torch.get_num_threads(), first))
    process.start()
    return process


def run_python(code: str, output: Path) -> tuple[int | None, str]:
    """Exit code and output of `code` where what `bench run` and `bench train` start with is loaded, and nothing else."""
    process = ForkedProcess(target=_python, args=(code, str(output)))
    process.start()
    process.join(120)
    return process.exitcode, output.read_text()


def _python(code: str, output: str) -> None:
    _write_to(output)
    exec(code, {"__name__": "__main__"})


def _write_to(output: str) -> None:
    with Path(output).open("w") as stream:
        for standard in (1, 2):
            os.dup2(stream.fileno(), standard)


def _bench(arguments: list[str], output: str, threads: int, first: Callable[[], None] | None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl-C may be ignored by what started the tests
    _write_to(output)
    torch.set_num_threads(threads)
    if first is not None:
        first()
    sys.argv = ["bench", *arguments]
    main()


def small_units_with_pauses() -> None:
    """In the process that is to be stopped: before each unit but the first there is time for that."""
    base.UNIT_EXAMPLES = UNIT
    compute = unit_worker.compute_unit

    def compute_slowly(plan: RunPlan, unit: WorkUnit, *arguments: Any, **named: Any) -> FinishedUnit:
        time.sleep(1.0 if unit.index else 0.0)
        return compute(plan, unit, *arguments, **named)

    unit_worker.compute_unit = compute_slowly


def descendants(process: int) -> set[int]:
    """Processes that `process` has started, and those that these have."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found, size = {process}, 0
    while len(found) > size:
        size = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found - {process}


def is_gone(process: int) -> bool:
    """Ended, whether or not its parent has asked."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def require_gone(processes: Iterable[int]) -> None:
    """Soon, at least."""
    waiting = set(processes)
    for _ in range(1200):  # a helper that still loads torch is gone when it has
        waiting = {one for one in waiting if not is_gone(one)}
        if not waiting:
            return
        time.sleep(0.05)
    raise AssertionError(f"processes {waiting} are left")
