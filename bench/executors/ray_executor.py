"""Computing units on a Ray cluster: who is hired, who has which unit, and what happens when one is lost.

Workers compute and nothing else: records come back to this process, which alone writes. Retries are counted here, per
unit, and not left to Ray, so that a unit that kills its workers ends as one clear line.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from bench.core.errors import BenchError
from bench.data import ImageDataset
from bench.executors.base import Executor
from bench.executors.ray_cluster import RayOptions, Shares, import_ray, joined, reason, resources, shares
from bench.executors.ray_worker import UnitWorker, versions
from bench.executors.shipping import Refusal, pack_plan, pack_split
from bench.runs.plan import RunPlan, WorkUnit
from bench.runs.units import FinishedUnit

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""How often a unit is tried, and how many workers in a row may fail to start."""
START_SECONDS = 900.0
"""How long nobody may be at work; a node that is fetched on demand needs minutes."""
_LOOK_SECONDS = 0.5
_REMIND_SECONDS = 60.0


@dataclass(eq=False, slots=True)
class _Worker:
    """An actor as seen from here.

    Attributes:
        shipment: the plan that it has, or is loading.
        call: what it was asked and has not answered yet.
        unit: which unit that is; None while it loads a plan.
        reported: how much of the unit's work has been told to the observer.
        question: for its progress, not answered yet.
    """

    number: int
    actor: Any
    shipment: Any = None
    call: Any = None
    unit: WorkUnit | None = None
    reported: int = 0
    question: Any = None


@dataclass(slots=True)
class _Job:
    """One plan's units on their way.

    Attributes:
        shipment: references to the packed plan, its images, and the training split's or None.
        left: units that have not come back.
    """

    plan: RunPlan
    shipment: tuple[Any, Any, Any]
    advanced: Callable[[int], None]
    queue: deque[WorkUnit]
    left: int
    attempts: dict[int, int] = field(default_factory=dict)


class RayExecutor(Executor):
    """Computes on a Ray cluster while its context is open; workers are kept from one plan to the next."""

    def __init__(self, options: RayOptions) -> None:
        """Raise BenchError when Ray is not installed; nothing is joined yet."""
        import_ray()
        self._options = options
        self._stack = ExitStack()
        self._ray: Any = None
        self._shares = Shares(options.cpus_per_worker, options.gpus_per_worker or 0.0)
        self._workers: list[_Worker] = []
        self._splits: dict[tuple[str, str], tuple[ImageDataset, Any]] = {}
        self._hired = self._lost = self._failed_starts = 0
        self._took_part: set[int] = set()
        self._last_at_work = self._reminded = 0.0

    def __enter__(self) -> RayExecutor:
        self._ray = self._stack.enter_context(joined(self._options))
        self._stack.callback(self._dismiss_all)
        self._shares = shares(self._ray, self._options)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._splits.clear()
        self._stack.close()

    def metadata(self) -> dict[str, Any]:
        executor = {
            "name": "ray",
            "workers": len(self._took_part),
            "workers_lost": self._lost,
            "cpus_per_worker": self._shares.cpus,
            "gpus_per_worker": self._shares.gpus,
        }
        return {"executor": executor, "threads": self._shares.cpus}

    def planning_device(self, device: str) -> str:  # noqa: ARG002
        return "cpu"  # workers have devices of their own; any machine has this one

    def device_of(self, plan: RunPlan) -> str:  # noqa: ARG002
        return self._shares.device

    def compute(
        self, plan: RunPlan, units: Sequence[WorkUnit], advanced: Callable[[int], None]
    ) -> Generator[FinishedUnit, None, None]:
        if not units:
            return
        limit = self._limit()
        job = _Job(plan, self._ship(plan), advanced, deque(units), len(units))
        self._lost = self._failed_starts = 0
        self._took_part.clear()
        self._last_at_work = self._reminded = time.monotonic()
        try:
            for worker in self._workers:
                if worker.call is None:
                    self._load(worker, job)
            while job.left:
                self._hire(job, limit)
                self._hand_out(job)
                for worker in self._answered():
                    finished = self._settle(worker, job)
                    # the next unit is on its way while this one is written down
                    self._hand_out(job)
                    if finished is not None:
                        yield finished
                self._ask_for_progress(job)
                self._require_somebody()
        finally:
            # whoever is still at it computes something that nobody wants any more
            for worker in [one for one in self._workers if one.unit is not None]:
                self._dismiss(worker)

    def _limit(self) -> int:
        if self._options.workers is not None:
            return self._options.workers
        room = self._shares.room(resources(self._ray))
        if room < 1:
            raise BenchError(
                f"no node of the Ray cluster has {self._describe_shares()} for a worker; change --cpus-per-worker or "
                "--gpus-per-worker, or say --workers N if nodes come on demand."
            )
        return room

    def _describe_shares(self) -> str:
        gpus = f" and {self._shares.gpus:g} GPU" if self._shares.gpus else ""
        return f"{self._shares.cpus} CPU{gpus}"

    def _ship(self, plan: RunPlan) -> tuple[Any, Any, Any]:
        training = self._put_split(plan.training) if plan.training is not None else None
        return self._ray.put(pack_plan(plan)), self._put_split(plan.dataset), training

    def _put_split(self, split: ImageDataset) -> Any:
        """A reference to the split in the object store; put there once, however many plans use it."""
        key = (split.name, split.split)
        known = self._splits.get(key)
        if known is None or known[0] is not split:
            known = self._splits[key] = (split, self._ray.put(pack_split(split)))
        return known[1]

    def _hire(self, job: _Job, limit: int) -> None:
        while len(self._workers) < min(limit, job.left):
            actor = (
                self._ray.remote(UnitWorker)
                .options(
                    num_cpus=self._shares.cpus,
                    num_gpus=self._shares.gpus,
                    max_restarts=0,
                    max_concurrency=2,  # so that `progress` is answered during `compute`
                    scheduling_strategy="SPREAD",
                )
                .remote(self._shares.cpus, self._shares.device)
            )
            worker = _Worker(self._hired, actor)
            self._hired += 1
            self._workers.append(worker)
            self._load(worker, job)

    def _load(self, worker: _Worker, job: _Job) -> None:
        worker.shipment = job.shipment
        worker.call = worker.actor.load.remote(*job.shipment)

    def _hand_out(self, job: _Job) -> None:
        for worker in self._workers:
            if worker.call is None and job.queue:
                worker.unit, worker.reported = job.queue.popleft(), 0
                worker.call = worker.actor.compute.remote(worker.unit)

    def _answered(self) -> Iterator[_Worker]:
        """Workers whose call is done or lost; waits a moment for one."""
        by_call = {worker.call: worker for worker in self._workers if worker.call is not None}
        ready, _ = self._ray.wait(list(by_call), num_returns=1, timeout=_LOOK_SECONDS)
        return iter([by_call[call] for call in ready])

    def _settle(self, worker: _Worker, job: _Job) -> FinishedUnit | None:
        """Take a worker's answer: a finished unit, or None if it was about something else."""
        call, unit = worker.call, worker.unit
        worker.call = worker.unit = worker.question = None
        try:
            answer = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            self._lose(worker, unit, job, error)
            return None
        if worker.shipment is not job.shipment:  # it was slow to start, and the others finished that plan
            self._load(worker, job)
            return None
        if isinstance(answer, Refusal):
            raise BenchError(answer.message)
        if unit is None:
            _require_same_versions(answer)
            self._failed_starts = 0
            return None
        job.left -= 1
        self._took_part.add(worker.number)
        job.advanced(job.plan.work_of(unit) - worker.reported)
        answer.facts["worker"] = worker.number
        if unit.index in job.attempts:
            answer.facts["attempts"] = 1 + job.attempts[unit.index]
        return answer  # type: ignore[no-any-return]

    def _lose(self, worker: _Worker, unit: WorkUnit | None, job: _Job, error: Exception) -> None:
        """A worker died or raised: it goes (its GPU may be in any state), its unit comes back into the queue."""
        self._dismiss(worker)
        self._lost += 1
        why = reason(error)
        logger.info("a Ray worker was lost", exc_info=error)
        if unit is None:
            self._failed_starts += 1
            if self._failed_starts >= MAX_ATTEMPTS:
                raise BenchError(f"no Ray worker can start: {MAX_ATTEMPTS} failed in a row, the last with: {why}")
            return
        job.advanced(-worker.reported)
        tries = job.attempts[unit.index] = job.attempts.get(unit.index, 0) + 1
        if tries >= MAX_ATTEMPTS:
            raise BenchError(
                f"work unit {unit.index} ({unit.start} to {unit.stop}) failed on {tries} Ray workers, the last with: "
                f"{why}. What was done is kept."
            )
        logger.warning("a Ray worker was lost (%s); its unit %d is computed again", why, unit.index)
        job.queue.appendleft(unit)

    def _ask_for_progress(self, job: _Job) -> None:
        questions = [worker.question for worker in self._workers if worker.question is not None]
        ready = self._ray.wait(questions, num_returns=len(questions), timeout=0)[0] if questions else []
        for worker in self._workers:
            if worker.unit is None:
                continue
            if worker.question in ready:
                question, worker.question = worker.question, None
                # whether the worker is lost, the answer to its call says
                with suppress(self._ray.exceptions.RayError):
                    index, done = self._ray.get(question)
                    if index == worker.unit.index:
                        job.advanced(done - worker.reported)
                        worker.reported = done
            if worker.question is None:
                worker.question = worker.actor.progress.remote()

    def _require_somebody(self) -> None:
        """Give up when nobody has been at work for long: the cluster has no room, or no nodes left."""
        now = time.monotonic()
        if any(worker.unit is not None for worker in self._workers):
            self._last_at_work = self._reminded = now
        elif now - self._last_at_work > START_SECONDS:
            raise BenchError(
                f"for {START_SECONDS / 60:.0f} minutes the Ray cluster has had no room for a worker of "
                f"{self._describe_shares()}; what was done is kept."
            )
        elif now - self._reminded > _REMIND_SECONDS:
            self._reminded = now
            logger.warning("still waiting for a Ray worker of %s; see `ray status`", self._describe_shares())

    def _dismiss(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(worker.actor, no_restart=True)

    def _dismiss_all(self) -> None:
        for worker in list(self._workers):
            self._dismiss(worker)


def _require_same_versions(theirs: dict[str, str]) -> None:
    ours = versions()
    different = [f"{name} {theirs[name]}, here it is {ours[name]}" for name in ours if theirs[name] != ours[name]]
    if different:
        raise BenchError(f"a Ray worker has {different[0]}; install the same versions on every node.")
