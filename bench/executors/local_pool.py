"""Units side by side on this machine: this process and helpers, one unit each at a time.

A small net gains nothing from a second thread, but two units on two cores take half the time. Helpers cost seconds to
start and memory of their own, so none is hired where that would not pay; and this process computes from the first
moment on, while they start.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import BrokenExecutor
from typing import Any

import torch
from torch import nn

from bench.core.errors import BenchError
from bench.executors.base import Executor, Job
from bench.executors.local_workers import HelperWorker, HereWorker
from bench.executors.shipping import pack_plan
from bench.leaderboard.evidence.manifest import ExecutorStats
from bench.runs.batch_size import processes_within_memory
from bench.runs.pieces import SlowUnit, shared
from bench.runs.plan import RunPlan, WorkUnit
from bench.runs.units import FinishedUnit, compute_unit, ready_model

logger = logging.getLogger(__name__)

HIRE_SECONDS = 8.0
"""Helpers come if what is left would take this process longer, or what is done has: they need some three to start."""
_JUDGE_SECONDS = 0.5
"""After so long the pace is known."""


class LocalPool(Executor):
    """Computes in this process and in helper processes of this machine; helpers are kept from one plan to the next.

    Open it (`with`) around the runs; outside of its context this process computes alone.
    """

    def __init__(self, workers: int | None = None) -> None:
        """Take `workers` processes, this one included; None: as many as cores and memory have room for, where it pays.

        Raises:
            BenchError: fewer than one.
        """
        super().__init__(BrokenExecutor)
        if workers is not None and workers < 1:
            raise BenchError(f"{workers} workers are too few; use 1 or more.", option="workers")
        self._wanted = workers
        self._open = False
        self._limit = 1
        self._hired = 0
        self._began = self._spent = 0.0
        self._threads: int | None = None

    def __enter__(self) -> LocalPool:
        self._open = True
        return self

    def __exit__(self, *error: object) -> None:
        self._open = False
        super().__exit__(*error)

    def stats(self) -> ExecutorStats:
        threads, workers = self._threads or torch.get_num_threads(), max(1, len(self._took_part))
        return ExecutorStats(name="local", workers=workers, workers_lost=self._lost, threads=threads)

    def _compute(
        self, plan: RunPlan, units: Sequence[WorkUnit], advanced: Callable[[int], None]
    ) -> Generator[FinishedUnit, None, None]:
        self._threads = None
        model, units = ready_model(plan), shared(plan, units, self._wanted or 1)
        self._limit = self._processes(plan, len(units), model)
        before = torch.get_num_threads()
        threads = max(1, before // self._limit)
        shipment = self._ship(plan, threads) if self._limit > 1 else None
        if shipment is None:
            yield from _alone(Job(plan, None, units, advanced), model)
            return
        self._threads, self._began = threads, time.monotonic()
        here = HereWorker(model, threads)
        self._workers.insert(0, here)
        try:
            yield from self._run(Job(plan, shipment, units, advanced), self._limit)
        finally:
            self._spent += time.monotonic() - self._began
            if here in self._workers:
                self._dismiss(here)
            torch.set_num_threads(before)  # a part of the number is the process's, whichever thread sets it

    def _processes(self, plan: RunPlan, units: int, model: nn.Module) -> int:
        """How many processes may be at work on the plan."""
        if not self._open or units == 1:
            return 1
        if self._wanted is not None:
            return min(self._wanted, units)
        if plan.device.type != "cpu" or not plan.protocol.batch_size_bounds_memory:
            return 1
        limit = min(torch.get_num_threads(), units)
        return min(limit, processes_within_memory(model, plan)) if limit > 1 else 1

    def _ship(self, plan: RunPlan, threads: int) -> tuple[Any, ...] | None:
        """What a helper needs, or None if the plan cannot leave this process and helpers are not insisted on."""
        try:
            for split in (plan.dataset, plan.training):
                if split is not None and not isinstance(split.store, torch.Tensor):
                    pickle.dumps(split.store)  # where images are read from is small, but may be open
            return pack_plan(plan), plan.dataset, plan.training, threads
        except (BenchError, pickle.PicklingError, TypeError, AttributeError) as error:
            if self._wanted is not None:
                raise BenchError(f"{self._wanted} workers cannot share this run: {error}", option="workers") from error
            logger.info("%s is evaluated in one process", plan.entry.card.name, exc_info=error)
            return None

    def _hire(self, job: Job) -> None:
        missing = min(self._limit - 1, len(job.queue)) - (len(self._workers) - 1) - self._lost
        if missing > 0 and (self._wanted is not None or self._worth_help(job)):
            try:
                for _ in range(missing):
                    self._hired += 1
                    self._workers.append(HelperWorker(self._hired))
            except OSError as error:  # no more processes, or no memory for them
                self._lost += missing
                logger.warning("no helper process can be started (%s); going on without", error.strerror)

    def _worth_help(self, job: Job) -> bool:
        """Whether what is left would take this process longer than helpers cost; after long plans, more may come."""
        passed = time.monotonic() - self._began
        if passed < _JUDGE_SECONDS:
            return False
        return self._spent + passed > HIRE_SECONDS or (job.done > 0 and passed * job.pending / job.done > HIRE_SECONDS)

    def _give_up_or_go_on(self, unit: WorkUnit | None, error: BaseException) -> None:
        """Go on: no worker replaces it, and this process computes the rest."""
        if unit is not None:
            logger.warning("a helper process has ended; its unit %d is computed again", unit.index)
        elif isinstance(error, BenchError):
            # a program may need files that lie beside it, which do not travel; here it could be loaded
            logger.warning("a helper process cannot load a model (%s); going on without it", error)
        else:
            logger.warning("a helper process has ended; going on without it", exc_info=error)


def _alone(job: Job, model: nn.Module) -> Generator[FinishedUnit, None, None]:
    """Compute all units here, one after another."""
    batch_size = job.plan.batch_size
    while job.queue:
        unit = job.queue.popleft()
        answer = compute_unit(job.plan, unit, model, batch_size, on_progress=job.report)
        if isinstance(answer, SlowUnit):
            job.report(-answer.done)
            job.queue.appendleft(unit)
        else:
            batch_size = answer.stats.batch_size
            yield answer
        job.cut(answer.pace, answer.smallest)
