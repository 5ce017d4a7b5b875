"""Computing units on a Ray cluster: who is hired, and when it is given up.

Ray's own ActorPool takes a dead actor back as idle, so each answer is a future of bench.executors.base. Retries are
counted here, per unit, and not left to Ray, so that a unit that kills its workers ends as one clear line.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from typing import Any

from bench.core.errors import BenchError
from bench.data import ImageDataset
from bench.executors.base import Executor, Job, Worker, cause_of
from bench.executors.ray_cluster import RayOptions, Shares, import_ray, joined, reason, resources, shares
from bench.executors.shipping import pack_plan, pack_split
from bench.executors.unit_worker import UnitWorker, versions
from bench.leaderboard.evidence.manifest import ExecutorStats
from bench.runs.pieces import SlowUnit
from bench.runs.plan import RunPlan, WorkUnit
from bench.runs.units import FinishedUnit

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""How often a unit is tried, and how many workers in a row may fail to start."""
START_SECONDS = 900.0
"""How long no worker may be at work; a node that is fetched on demand needs minutes."""
_REMIND_SECONDS = 60.0


class RayWorker(Worker):
    """An actor as seen from here."""

    def __init__(self, ray: Any, number: int, shares: Shares) -> None:
        """Ask the cluster for one of these shares."""
        self.number = number
        self._ray = ray
        self._at = (-1, 0)
        self._question: Future[tuple[int, int]] | None = None
        # two calls at a time, so that `progress` is answered during `compute`
        own = {"num_cpus": shares.cpus, "num_gpus": shares.gpus, "max_concurrency": 2, "max_restarts": 0}
        self._actor = ray.remote(UnitWorker).options(**own, scheduling_strategy="SPREAD").remote()

    def load(self, job: Job) -> Future[Any]:
        return self._actor.load.remote(*job.shipment).future()  # type: ignore[no-any-return]

    def compute(self, unit: WorkUnit) -> Future[FinishedUnit | SlowUnit]:
        return self._actor.compute.remote(unit).future()  # type: ignore[no-any-return]

    def progress(self) -> tuple[int, int]:
        if self._question is None or self._question.done():
            # whether the worker is lost, the answer to its call says
            if self._question is not None and self._question.exception() is None:
                self._at = self._question.result()
            self._question = self._actor.progress.remote().future()
        return self._at

    def stop(self) -> None:
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(self._actor, no_restart=True)


class RayExecutor(Executor):
    """Computes on a Ray cluster while its context is open."""

    def __init__(self, options: RayOptions) -> None:
        """Raise BenchError when Ray is not installed; nothing is joined yet."""
        super().__init__(import_ray().exceptions.RayError)
        self._options = options
        self._stack = ExitStack()
        self._ray: Any = None
        self._shares = Shares(options.cpus_per_worker, options.gpus_per_worker or 0.0)
        self._splits: dict[tuple[str, str], tuple[ImageDataset, Any]] = {}
        self._attempts: dict[int, int] = {}
        self._limit = self._hired = self._failed_starts = 0
        self._last_at_work = self._reminded = 0.0

    def __enter__(self) -> RayExecutor:
        self._ray = self._stack.enter_context(joined(self._options))
        self._shares = shares(self._ray, self._options)
        return self

    def __exit__(self, *error: object) -> None:
        self._splits.clear()
        with self._stack:
            super().__exit__(*error)

    def stats(self) -> ExecutorStats:
        return ExecutorStats(
            name="ray",
            workers=len(self._took_part),
            workers_lost=self._lost,
            cpus_per_worker=self._shares.cpus,
            gpus_per_worker=self._shares.gpus,
            threads=self._shares.cpus,
        )

    def planning_device(self, device: str) -> str:  # noqa: ARG002
        return "cpu"  # workers have devices of their own; any machine has this one

    def _compute(
        self, plan: RunPlan, units: Sequence[WorkUnit], advanced: Callable[[int], None]
    ) -> Generator[FinishedUnit, None, None]:
        self._limit = self._options.workers or self._room()
        self._failed_starts = 0
        self._attempts.clear()
        self._last_at_work = self._reminded = time.monotonic()
        yield from self._run(Job(plan, self._ship(plan), units, advanced), self._limit)

    def _room(self) -> int:
        room = self._shares.room(resources(self._ray))
        if room < 1:
            raise BenchError(
                f"no node of the Ray cluster has {self._shares} for a worker; ask for less, or, if nodes come on "
                "demand, say how many workers there are to be.",
                option=("cpus_per_worker", "gpus_per_worker", "workers"),
            )
        return room

    def _ship(self, plan: RunPlan) -> tuple[Any, ...]:
        splits = [None if split is None else self._put_split(split) for split in (plan.dataset, plan.training)]
        return self._ray.put(pack_plan(plan)), *splits, self._shares.device, self._shares.cpus

    def _put_split(self, split: ImageDataset) -> Any:
        """A reference to the split in the object store; put there once, however many plans use it."""
        key = (split.name, split.split)
        known = self._splits.get(key)
        if known is None or known[0] is not split:
            known = self._splits[key] = (split, self._ray.put(pack_split(split)))
        return known[1]

    def _hire(self, job: Job) -> None:
        self._require_progress()
        while len(self._workers) < min(self._limit, job.left):
            worker = RayWorker(self._ray, self._hired, self._shares)
            self._hired += 1
            self._workers.append(worker)
            self._load(worker, job)

    def _settle(self, worker: Worker, job: Job) -> FinishedUnit | None:
        unit, answer = worker.unit, worker.call
        finished = super()._settle(worker, job)
        if finished is not None:
            finished.stats.worker = worker.number
            finished.stats.attempts = 1 + self._attempts.get(finished.index, 0)
        elif unit is None and answer is not None and answer.exception() is None:
            _require_same_versions(answer.result())
            self._failed_starts = 0
        return finished

    def _give_up_or_go_on(self, unit: WorkUnit | None, error: BaseException) -> None:
        cause = cause_of(error)
        if isinstance(cause, BenchError):
            raise BenchError(f"on a Ray worker: {cause}", option=cause.options) from cause
        why = reason(error)
        logger.info("a Ray worker was lost", exc_info=error)
        if unit is None:
            self._failed_starts += 1
            if self._failed_starts >= MAX_ATTEMPTS:
                raise BenchError(f"no Ray worker can start: {MAX_ATTEMPTS} failed in a row, the last with: {why}")
            return
        tries = self._attempts[unit.index] = self._attempts.get(unit.index, 0) + 1
        if tries >= MAX_ATTEMPTS:
            raise BenchError(
                f"work unit {unit.index} ({unit.start} to {unit.stop}) failed on {tries} Ray workers, the last with: "
                f"{why}. What was done is kept."
            )
        logger.warning("a Ray worker was lost (%s); its unit %d is computed again", why, unit.index)

    def _require_progress(self) -> None:
        """Give up when no worker has been at work for long: the cluster has no room, or no nodes left."""
        now = time.monotonic()
        if any(worker.unit is not None for worker in self._workers):
            self._last_at_work = self._reminded = now
        elif now - self._last_at_work > START_SECONDS:
            raise BenchError(
                f"for {START_SECONDS / 60:.0f} minutes the Ray cluster has had no room for a worker of "
                f"{self._shares}; what was done is kept."
            )
        elif now - self._reminded > _REMIND_SECONDS:
            self._reminded = now
            logger.warning("still waiting for a Ray worker of %s; see `ray status`", self._shares)


def _require_same_versions(theirs: dict[str, str]) -> None:
    ours = versions()
    different = [f"{name} {theirs[name]}, here it is {ours[name]}" for name in ours if theirs[name] != ours[name]]
    if different:
        raise BenchError(f"a Ray worker has {different[0]}; install the same versions on every node.")
