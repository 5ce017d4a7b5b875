"""Units side by side on this machine: this process and helpers, one unit each at a time.

A small net gains nothing from a second thread, but two units on two cores take half the time. Helpers cost seconds to
start and memory of their own, so nobody is hired where that would not pay; and this process computes from the first
moment on, while they start.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any

import torch
from torch import nn

from bench.core.errors import BenchError
from bench.executors.base import LocalExecutor, compute_here
from bench.executors.helper_process import Advanced, Load
from bench.executors.shipping import Refusal, pack_plan
from bench.executors.workers import Failed, HelperWorker, HereWorker, Inbox, Lost, Member
from bench.runs.batch_size import processes_within_memory
from bench.runs.plan import RunPlan, WorkUnit
from bench.runs.units import FinishedUnit, ready_model

logger = logging.getLogger(__name__)

HIRE_SECONDS = 8.0
"""Helpers come if what is left would take this process longer, or what is done has: they need some three to start."""
_JUDGE_SECONDS = 0.5
"""After so long the pace is known."""
_LOOK_SECONDS = 1.0


@dataclass(slots=True)
class _Job:
    """One plan's units on their way.

    Attributes:
        limit: how many may be at work, this process included.
        left: units that have not come back.
        pending: how much work has not been done, in the measure of `RunPlan.work`.
        spent: seconds on earlier plans, which say that more may come.
    """

    plan: RunPlan
    load: Load
    limit: int
    advanced: Callable[[int], None]
    queue: deque[WorkUnit]
    left: int
    pending: int
    spent: float
    done: int = 0
    began: float = field(default_factory=time.monotonic)

    def report(self, amount: int) -> None:
        self.done += amount
        self.pending -= amount
        self.advanced(amount)

    def worth_help(self) -> bool:
        """Whether what is left would take this process longer than helpers cost."""
        passed = time.monotonic() - self.began
        if passed < _JUDGE_SECONDS:
            return False
        if self.spent + passed > HIRE_SECONDS:
            return True
        return self.done > 0 and passed * self.pending / self.done > HIRE_SECONDS


class LocalPool(LocalExecutor):
    """Computes in this process and in helper processes of this machine; helpers are kept from one plan to the next.

    Open it (`with`) around the runs; outside of its context nobody is hired.
    """

    def __init__(self, workers: int | None = None) -> None:
        """Take `workers` processes, this one included; None: as many as cores and memory have room for, where it pays.

        Raises:
            BenchError: fewer than one.
        """
        if workers is not None and workers < 1:
            raise BenchError(f"--workers {workers} leaves nobody to work; use 1 or more.")
        self._wanted = workers
        self._open = False
        self._inbox: Inbox = SimpleQueue()
        self._helpers: list[HelperWorker] = []
        self._plans = self._lost = 0
        self._spent = 0.0
        self._took_part: set[Member] = set()
        self._threads: int | None = None

    def __enter__(self) -> LocalPool:
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        while self._helpers:
            self._helpers.pop().stop()

    def metadata(self) -> dict[str, Any]:
        executor: dict[str, Any] = {"name": "local", "workers": max(1, len(self._took_part))}
        if self._lost:
            executor["workers_lost"] = self._lost
        return {"executor": executor, "threads": self._threads or torch.get_num_threads()}

    def compute(
        self, plan: RunPlan, units: Sequence[WorkUnit], advanced: Callable[[int], None]
    ) -> Generator[FinishedUnit, None, None]:
        if not units:
            return
        self._took_part.clear()
        self._lost, self._threads = 0, None
        model = ready_model(plan)
        limit = self._limit(plan, len(units), model)
        load = self._load_request(plan, limit) if limit > 1 else None
        if load is None:
            yield from compute_here(plan, units, model, advanced)
            return
        before, self._threads = torch.get_num_threads(), load.threads
        work = sum(plan.work_of(unit) for unit in units)
        job = _Job(plan, load, limit, advanced, deque(units), len(units), work, self._spent)
        here = HereWorker(plan, load.number, model, load.threads, self._inbox)
        try:
            yield from self._compute(job, here)
        finally:
            self._spent += time.monotonic() - job.began
            here.stop()
            torch.set_num_threads(before)  # a part of the number is the process's, whichever thread sets it
            # whoever is still at it computes something that nobody wants any more
            for helper in [one for one in self._helpers if one.unit is not None]:
                self._dismiss(helper)

    def _limit(self, plan: RunPlan, units: int, model: nn.Module) -> int:
        """How many processes may be at work on the plan."""
        if not self._open or units == 1:
            return 1
        if self._wanted is not None:
            return min(self._wanted, units)
        if plan.device.type != "cpu" or not plan.protocol.batch_size_bounds_memory:
            return 1
        limit = min(torch.get_num_threads(), units)
        return min(limit, processes_within_memory(model, plan)) if limit > 1 else 1

    def _load_request(self, plan: RunPlan, limit: int) -> Load | None:
        """What a helper needs, or None if the plan cannot leave this process and nobody insists."""
        threads = max(1, torch.get_num_threads() // limit)
        self._plans += 1
        try:
            for split in (plan.dataset, plan.training):
                if split is not None and not isinstance(split.store, torch.Tensor):
                    pickle.dumps(split.store)  # where images are read from is small, but may be open
            return Load(self._plans, pack_plan(plan), plan.device, threads, plan.dataset, plan.training)
        except (BenchError, pickle.PicklingError, TypeError, AttributeError) as error:
            if self._wanted is not None:
                raise BenchError(f"--workers {self._wanted}: {error}") from error
            logger.info("%s is evaluated in one process", plan.entry.card.name, exc_info=error)
            return None

    def _compute(self, job: _Job, here: HereWorker) -> Generator[FinishedUnit, None, None]:
        for helper in self._helpers[: job.limit - 1]:
            if helper.started and helper.unit is None:
                helper.load(job.load)
        while job.left:
            self._hire(job)
            self._hand_out(job, here)
            try:
                member, answer = self._inbox.get(timeout=_LOOK_SECONDS)
            except Empty:
                continue
            finished = self._settle(member, answer, job)
            if finished is not None:
                # the next unit is on its way while this one is written down
                self._hand_out(job, here)
                yield finished

    def _hire(self, job: _Job) -> None:
        missing = min(job.limit - 1, len(job.queue)) - len(self._helpers) - self._lost
        if missing > 0 and (self._wanted is not None or job.worth_help()):
            try:
                for _ in range(missing):
                    self._helpers.append(HelperWorker(self._inbox))
            except OSError as error:  # no more processes, or no memory for them
                self._lost += missing
                logger.warning("no helper process can be started (%s); going on without", error.strerror)

    def _hand_out(self, job: _Job, here: HereWorker) -> None:
        for member in (here, *self._helpers):
            if job.queue and member.plan_number == job.load.number and member.unit is None:
                member.give(job.queue.popleft())

    def _settle(self, member: Member, answer: Any, job: _Job) -> FinishedUnit | None:
        """Take an answer: a finished unit, or None if it was about something else."""
        if isinstance(member, HelperWorker):
            if member not in self._helpers:
                return None  # it was dismissed
            self._hear(member, answer, job)
        elif member.plan_number != job.load.number:
            return None  # the last words of a plan that has failed, and that somebody went on after
        if isinstance(answer, Failed):
            raise answer.error
        unit = member.unit
        if unit is None:
            return None
        if isinstance(answer, Refusal):
            raise BenchError(answer.message)
        if isinstance(answer, Advanced):
            member.reported += answer.amount
            job.report(answer.amount)
        if not isinstance(answer, FinishedUnit):
            return None
        member.unit = None
        job.left -= 1
        job.report(job.plan.work_of(unit) - member.reported)
        self._took_part.add(member)
        return answer

    def _hear(self, helper: HelperWorker, answer: Any, job: _Job) -> None:
        """What concerns helpers only: one has started, has a plan, or is gone."""
        if isinstance(answer, Lost):
            self._lose(helper, job)
            return
        if isinstance(answer, Refusal) and helper.unit is None:
            # a program may need files that lie beside it, which do not travel; here it could be loaded
            self._lost += 1
            self._dismiss(helper)
            logger.warning("a helper process cannot load a model (%s); going on without it", answer.message)
            return
        was_started = helper.started
        helper.heard(answer)
        late = helper.unit is None and helper.plan_number not in (None, job.load.number)
        if (late or not was_started) and job.queue:
            helper.load(job.load)

    def _lose(self, helper: HelperWorker, job: _Job) -> None:
        """A helper died: its unit comes back into the queue, and nobody is hired in its place."""
        unit, reported = helper.unit, helper.reported
        self._dismiss(helper)
        self._lost += 1
        if unit is None:
            logger.warning("a helper process has ended; going on without it")
            return
        job.report(-reported)
        job.queue.appendleft(unit)
        logger.warning("a helper process has ended; its unit %d is computed again", unit.index)

    def _dismiss(self, helper: HelperWorker) -> None:
        self._helpers.remove(helper)
        helper.stop()
        helper.unit = None
