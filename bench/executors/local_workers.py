"""Workers of this machine: a thread of this process, and processes that this one has started.

Each helper is a process pool of one: a pool whose process dies is lost as a whole, and the others go on.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, MutableSequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import Any

from torch import nn

from bench.core.devices import worker_device
from bench.executors.base import Job, Worker
from bench.executors.unit_worker import UnitWorker
from bench.runs.pieces import SlowUnit
from bench.runs.plan import WorkUnit
from bench.runs.units import FinishedUnit

_OF_THE_PARENT = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""A terminal or a scheduler sends them to all processes; helpers end when this process ends them, or has gone."""
_STOP_SECONDS = 15.0
"""How long a unit may take to notice that it is not wanted any more; torch aborts a process that ends without it."""


class HereWorker(Worker):
    """Threads of this process, one after another."""

    def __init__(self, model: nn.Module, threads: int) -> None:
        """Let it compute with `model`, which is ready for the plan, by `threads` of torch."""
        self._model, self._threads, self._inner = model, threads, UnitWorker()

    def load(self, job: Job) -> Future[Any]:
        return self._start(self._inner.take, job.plan, self._model, self._threads)

    def compute(self, unit: WorkUnit) -> Future[FinishedUnit | SlowUnit]:
        return self._start(self._inner.compute, unit)

    def progress(self) -> tuple[int, int]:
        return self._inner.progress()

    def stop(self) -> None:
        self._inner.stopped = True
        if self.call is not None:
            wait([self.call], _STOP_SECONDS)

    def _start(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        call: Future[Any] = Future()

        def work() -> None:
            try:
                call.set_result(function(*arguments))
            except BaseException as error:  # noqa: BLE001  (raised again by the thread that waits)
                call.set_exception(error)

        # a daemon, which a pool's threads are not: Ctrl-C must not wait for the end of a long step
        threading.Thread(target=work, name="bench-units", daemon=True).start()
        return call


class HelperProcess:
    """A process of this machine, started by this one and ended with it, that does one thing at a time.

    Attributes:
        at: numbers that it tells while it is at work, by `tell`.
        call: done as soon as it is up.
    """

    def __init__(self) -> None:
        """Start it.

        Raises:
            OSError: the system starts no more processes.
        """
        self._context = _Context()
        self.at: MutableSequence[int] = self._context.RawArray("q", [-1, 0, 0, 0])
        self._pool = ProcessPoolExecutor(1, self._context, _prepare, (self.at,))
        self.call: Future[Any] | None = self._pool.submit(os.getpid)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Let it call a module's function; BrokenExecutor is the outcome where it dies, or has died."""
        try:
            return self._pool.submit(function, *arguments)
        except BrokenExecutor as error:  # it has died while it had nothing to do
            call: Future[Any] = Future()
            call.set_exception(error)
            return call

    def stop(self) -> None:
        """End it, also in the middle of something."""
        if self._context.started is not None:
            self._context.started.kill()
        self._pool.shutdown()


class HelperWorker(HelperProcess, Worker):
    """A helper process that computes units."""

    def __init__(self, number: int = 1) -> None:
        """Start it, to compute on the GPU of its number where there are several; this process is number 0.

        Raises:
            OSError: the system starts no more processes.
        """
        super().__init__()
        self.number = number

    def load(self, job: Job) -> Future[Any]:
        # as bytes: as tensors they would go into shared memory, of which a container has little
        packed, dataset, training, threads = job.shipment
        device = str(worker_device(job.plan.device, self.number))
        return self.submit(_load, pickle.dumps((packed, dataset, training, device, threads)))

    def compute(self, unit: WorkUnit) -> Future[FinishedUnit | SlowUnit]:
        return self.submit(_compute, unit)

    def progress(self) -> tuple[int, int]:
        return self.at[0], self.at[1]


def tell(*numbers: int) -> None:
    """In a helper process: what the one that started it reads as `HelperProcess.at`, four numbers at most."""
    _worker.at[: len(numbers)] = numbers


class _Process(SpawnProcess):
    def start(self) -> None:
        """Start it so that it does not run the user's script again, and that Ctrl-C reaches this process alone."""
        script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        masks = hasattr(signal, "pthread_sigmask")  # not on Windows
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_THE_PARENT) if masks else set()  # is inherited
        try:
            with _console_without_ctrl_c():
                super().start()
        finally:
            if masks:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            sys.modules["__main__"] = script


@contextmanager
def _console_without_ctrl_c() -> Iterator[None]:
    """Windows has no masks of signals; there a process inherits whether it ignores Ctrl-C."""
    if sys.platform == "win32":
        import ctypes

        ctypes.windll.kernel32.SetConsoleCtrlHandler(None, True)
        try:
            yield
        finally:
            ctypes.windll.kernel32.SetConsoleCtrlHandler(None, False)
    else:
        yield


class _Context(SpawnContext):
    """For one process, which can be killed."""

    started: _Process | None = None

    def Process(self, *arguments: Any, **options: Any) -> _Process:  # type: ignore[override]  # noqa: N802
        self.started = _Process(*arguments, **options)
        return self.started


_worker = UnitWorker()
"""The one of a helper process."""


def _prepare(at: MutableSequence[int]) -> None:
    """What comes first in a helper."""
    for number in _OF_THE_PARENT:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # what a model's own code prints must not get into a command's output
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    _worker.at = at


def _end_with_parent() -> None:
    """Nothing is left behind by a parent that was killed, not even in the middle of a unit."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


def _load(content: bytes) -> None:
    _worker.load(*pickle.loads(content))  # noqa: S301  (of the process that started this one)


def _compute(unit: WorkUnit) -> FinishedUnit | SlowUnit:
    return _worker.compute(unit)
