"""Who computes units side by side: a thread of this process, and helper processes of this machine.

All of them answer into one inbox, so that one thread, the one that writes results down, can wait for whoever is next.
"""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import torch
from torch import nn

from bench.executors.helper_process import Advanced, Load, Loaded
from bench.runs.plan import RunPlan, WorkUnit
from bench.runs.units import compute_unit

_START = """
import pickle, sys
try:
    sys.path[:] = pickle.load(sys.stdin.buffer)
except EOFError:  # whoever started it has ended
    sys.exit()
from bench.executors.helper_process import main
main()
"""
_STOP_SECONDS = 5.0
"""How long a unit may take to notice that nobody wants it any more."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The error that ended a unit in this process."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Lost:
    """The helper process has ended, with whatever it had at hand."""


Inbox = SimpleQueue[tuple["Member", Any]]
"""Who says it, and Started, Loaded, Advanced, FinishedUnit, Refusal, Failed or Lost."""


class Member(ABC):
    """One that computes a unit at a time.

    Attributes:
        plan_number: the plan that it is ready for; None while there is none.
        unit: what it is at.
        reported: how much of the unit's work it has told.
    """

    def __init__(self) -> None:
        self.plan_number: int | None = None
        self.unit: WorkUnit | None = None
        self.reported = 0

    @abstractmethod
    def give(self, unit: WorkUnit) -> None:
        """Let it compute a unit; it must be ready and at nothing else."""

    @abstractmethod
    def stop(self) -> None:
        """End it, also in the middle of a unit, which is dropped."""


class HereWorker(Member):
    """A thread of this process."""

    def __init__(self, plan: RunPlan, number: int, model: nn.Module, threads: int, inbox: Inbox) -> None:
        """Start it, ready for the plan; torch uses `threads` in it."""
        super().__init__()
        self.plan_number = number
        self._plan, self._model, self._threads, self._inbox = plan, model, threads, inbox
        self._units: SimpleQueue[WorkUnit | None] = SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="bench-units", daemon=True)
        self._thread.start()

    def give(self, unit: WorkUnit) -> None:
        self.unit, self.reported = unit, 0
        self._units.put(unit)

    def stop(self) -> None:
        self._stopped.set()
        self._units.put(None)
        self._thread.join(_STOP_SECONDS)

    def _work(self) -> None:
        # OpenMP's number of threads belongs to the thread that asks
        torch.set_num_threads(self._threads)
        batch_size = self._plan.batch_size
        while (unit := self._units.get()) is not None:
            try:
                finished = compute_unit(self._plan, unit, self._model, batch_size, self._advanced)
            except _StoppedError:
                return
            except BaseException as error:  # noqa: BLE001  (raised again by the thread that waits)
                self._inbox.put((self, Failed(error)))
                return
            batch_size = finished.batch_size
            self._inbox.put((self, finished))

    def _advanced(self, amount: int) -> None:
        if self._stopped.is_set():
            raise _StoppedError
        self._inbox.put((self, Advanced(amount)))


class HelperWorker(Member):
    """A process of this machine, started by this one and ended with it."""

    def __init__(self, inbox: Inbox) -> None:
        """Start it; it answers Started when it can be given a plan."""
        super().__init__()
        self.started = False
        self._inbox = inbox
        # in a session of its own, so that Ctrl-C reaches this process alone, which then ends it
        self._process = subprocess.Popen(  # noqa: S603  (nothing of it comes from outside)
            [sys.executable, "-W", "ignore", "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._send(sys.path)
        threading.Thread(target=self._listen, name="bench-helper", daemon=True).start()

    def load(self, request: Load) -> None:
        """Give it a plan; it answers Loaded."""
        self.plan_number = None
        self._send(request)

    def give(self, unit: WorkUnit) -> None:
        self.unit, self.reported = unit, 0
        self._send(unit)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):  # what was written to a process that is gone
                    stream.close()

    def heard(self, answer: Any) -> None:
        """Take note of what it says of itself."""
        self.started = True
        if isinstance(answer, Loaded):
            self.plan_number = answer.number

    def _send(self, message: Any) -> None:
        if self._process.stdin is None:
            raise RuntimeError("the helper has no standard input")
        with contextlib.suppress(OSError):  # it has ended, which is noticed by whoever listens
            pickle.dump(message, self._process.stdin)
            self._process.stdin.flush()

    def _listen(self) -> None:
        stream = self._process.stdout
        try:
            while stream is not None:
                self._inbox.put((self, pickle.load(stream)))  # noqa: S301  (written by our own process)
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):
            self._inbox.put((self, Lost()))


class _StoppedError(BaseException):
    """Nobody wants the unit any more; no Exception, so that nothing on the way takes it for one of a model's."""
