"""Where units are computed: what every executor promises, which worker has which unit, and what if one is lost.

Workers compute and nothing else: records come back to this process, which alone writes. Where workers are, how many
there are, and when the run is given up, subclasses decide.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, Self

from bench.core.errors import BenchError
from bench.leaderboard.evidence.manifest import ExecutorStats
from bench.runs.pieces import SlowUnit, pieces
from bench.runs.plan import RunPlan, WorkUnit
from bench.runs.units import FinishedUnit

_LOOK_SECONDS = 0.25


class Job:
    """One plan's units on their way.

    Attributes:
        shipment: what `UnitWorker.load` needs for them.
        left: how many units have not come back.
        done, pending: how much work is done and is not, in the measure of `RunPlan.work`.
    """

    def __init__(
        self, plan: RunPlan, shipment: Any, units: Sequence[WorkUnit], advanced: Callable[[int], None]
    ) -> None:
        self.plan, self.shipment = plan, shipment
        self.queue, self.left = deque(units), len(units)
        self.done, self.pending = 0, sum(plan.work_of(unit) for unit in units)
        self._advanced = advanced

    def cut(self, pace: float, smallest: int) -> None:
        """Cut what waits into `smallest` images or more, so that none takes too long at `pace` seconds an image."""
        before = len(self.queue)
        self.queue = deque(piece for unit in self.queue for piece in pieces(self.plan, unit, pace, smallest))
        self.left += len(self.queue) - before

    def report(self, amount: int) -> None:
        """So much work is newly done; negative where it was lost."""
        self.done += amount
        self.pending -= amount
        self._advanced(amount)


class Worker(ABC):
    """One that does one thing at a time: get ready for a plan, or compute a unit of it.

    Attributes:
        job: the plan that it is ready for, or is getting ready for.
        call: what it was asked and has not answered yet.
        unit: which unit that is; None while it gets ready.
        reported: how much of the unit's work has been told to the observer.
    """

    number = 0
    job: Job | None = None
    call: Future[Any] | None = None
    unit: WorkUnit | None = None
    reported = 0

    @abstractmethod
    def load(self, job: Job) -> Future[Any]:
        """Get ready for a plan."""

    @abstractmethod
    def compute(self, unit: WorkUnit) -> Future[FinishedUnit | SlowUnit]:
        """Compute a unit of the plan that it is ready for, or give it up to be cut."""

    @abstractmethod
    def progress(self) -> tuple[int, int]:
        """The index of a unit and how much of its work is done, as far as is known here."""

    @abstractmethod
    def stop(self) -> None:
        """End it, also in the middle of a unit, which is dropped."""


def cause_of(error: BaseException) -> BaseException:
    """What was raised in a worker; Ray wraps it."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error


class Executor(ABC):
    """Computes the units of plans, while its context is open where it needs one; workers are kept between plans.

    What becomes of the results, and which units are still missing, is not its concern.
    """

    def __init__(self, *losses: type[BaseException]) -> None:
        """Take the errors that cost a worker, and not the run."""
        self._losses = losses
        self._workers: list[Worker] = []
        self._took_part: set[Worker] = set()
        self._lost = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """End what the executor has started."""
        while self._workers:
            self._workers.pop().stop()

    @abstractmethod
    def stats(self) -> ExecutorStats:
        """What the manifest says of it."""

    def planning_device(self, device: str) -> str:
        """The device that plans are checked on, where runs are to be computed on `device`."""
        return device

    def compute(
        self, plan: RunPlan, units: Sequence[WorkUnit], advanced: Callable[[int], None]
    ) -> Generator[FinishedUnit, None, None]:
        """Compute `units`, and give each as soon as it is done, in any order.

        Closing the generator early drops the units that are not done.

        Args:
            advanced: called with the amount of work newly done, in the measure of `RunPlan.work`; negative where work
                was lost and has to be done again.

        Raises:
            BenchError: the model fails on an image, or the executor cannot go on.
        """
        self._lost = 0
        self._took_part.clear()
        if units:
            yield from self._compute(plan, units, advanced)

    @abstractmethod
    def _compute(
        self, plan: RunPlan, units: Sequence[WorkUnit], advanced: Callable[[int], None]
    ) -> Generator[FinishedUnit, None, None]:
        """Compute at least one unit, by `_run`."""

    @abstractmethod
    def _hire(self, job: Job) -> None:
        """Add the workers that are missing, or raise BenchError where none can be had; asked a few times a second."""

    @abstractmethod
    def _give_up_or_go_on(self, unit: WorkUnit | None, error: BaseException) -> None:
        """A worker was lost, with that unit, or in getting ready: say so, or raise BenchError."""

    def _run(self, job: Job, limit: int) -> Generator[FinishedUnit, None, None]:
        """Compute the job's units by at most `limit` of the workers that are there, and those that `_hire` adds."""
        for worker in self._workers[:limit]:
            if worker.call is None:
                self._load(worker, job)
        try:
            while job.left:
                self._hire(job)
                self._hand_out(job)
                for worker in self._answered():
                    finished = self._settle(worker, job)
                    # the next unit is on its way while this one is written down
                    self._hand_out(job)
                    if finished is not None:
                        yield finished
                self._report(job)
        finally:
            # what they are at is not wanted any more; this process's own thread, which comes first, takes longest
            for worker in [one for one in reversed(self._workers) if one.unit is not None]:
                self._dismiss(worker)

    def _load(self, worker: Worker, job: Job) -> None:
        worker.job, worker.call = job, worker.load(job)

    def _hand_out(self, job: Job) -> None:
        for worker in self._workers:
            if worker.call is None and worker.job is job and job.queue:
                worker.unit, worker.reported = job.queue.popleft(), 0
                worker.call = worker.compute(worker.unit)

    def _answered(self) -> list[Worker]:
        """Workers whose call is done or lost; waits a moment for one."""
        calls = {worker.call: worker for worker in self._workers if worker.call is not None}
        done = wait(calls, timeout=_LOOK_SECONDS, return_when=FIRST_COMPLETED).done
        return [worker for call, worker in calls.items() if call in done]

    def _settle(self, worker: Worker, job: Job) -> FinishedUnit | None:
        """Take a worker's answer: a finished unit, or None if it was about something else."""
        call, unit = worker.call, worker.unit
        worker.call = worker.unit = None
        error = call.exception() if call is not None else None
        refused = error is not None and isinstance(cause_of(error), BenchError)
        if unit is not None and error is not None and (refused or not isinstance(error, self._losses)):
            raise cause_of(error)
        if worker.job is not job and (refused or error is None):
            self._load(worker, job)  # it was slow to start, and the others have finished that plan
        elif error is not None:
            self._lose(worker, unit, job, error)
        elif unit is not None and call is not None:
            return self._take(worker, unit, job, call.result())
        return None

    def _take(self, worker: Worker, unit: WorkUnit, job: Job, answer: FinishedUnit | SlowUnit) -> FinishedUnit | None:
        self._took_part.add(worker)
        if isinstance(answer, SlowUnit):
            job.report(-worker.reported)
            job.queue.appendleft(unit)
            job.cut(answer.pace, answer.smallest)
            return None
        job.left -= 1
        job.report(job.plan.work_of(unit) - worker.reported)
        job.cut(answer.pace, answer.smallest)
        return answer

    def _lose(self, worker: Worker, unit: WorkUnit | None, job: Job, error: BaseException) -> None:
        """A worker died or cannot get ready: it goes, and its unit comes back into the queue."""
        self._dismiss(worker)
        self._lost += 1
        if unit is not None:
            job.report(-worker.reported)
            job.queue.appendleft(unit)
        self._give_up_or_go_on(unit, error)

    def _report(self, job: Job) -> None:
        for worker in self._workers:
            if worker.unit is not None:
                index, done = worker.progress()
                if index == worker.unit.index and done != worker.reported:
                    job.report(done - worker.reported)
                    worker.reported = done

    def _dismiss(self, worker: Worker) -> None:
        self._workers.remove(worker)
        worker.stop()
