"""Who gets which unit, with workers that answer when a test says so."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import BrokenExecutor, Future
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from bench.core.errors import BenchError
from bench.executors.base import Executor, Job, Worker
from bench.leaderboard.evidence.manifest import UnitStats
from bench.runs.plan import WorkUnit
from bench.runs.units import FinishedUnit

UNITS = [WorkUnit(number, number, number + 1) for number in range(4)]


def answer(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    if isinstance(value, BaseException):
        future.set_exception(value)
    else:
        future.set_result(value)
    return future


class Scripted(Worker):
    """Answers at once, but for what `loading` holds; `fails_at` is the unit that it dies of, two steps in."""

    def __init__(self, *loading: Future[Any], fails_at: int = -1) -> None:
        self.loading, self.fails_at = list(loading), fails_at
        self.plans: list[Any] = []
        self.units: list[tuple[Any, int]] = []
        self.stopped = False

    def load(self, job: Job) -> Future[Any]:
        self.plans.append(job.plan)
        return self.loading.pop(0) if self.loading else answer(None)

    def compute(self, unit: WorkUnit) -> Future[FinishedUnit]:
        self.units.append((self.plans[-1], unit.index))
        if unit.index == self.fails_at:
            return answer(BrokenExecutor("gone"))
        return answer(
            FinishedUnit(
                unit.index, pd.DataFrame(), UnitStats(start=unit.start, stop=unit.stop, seconds=0.0, device="cpu")
            )
        )

    def progress(self) -> tuple[int, int]:
        return self.units[-1][1], 2

    def stop(self) -> None:
        self.stopped = True


class Scheduler(Executor):
    def __init__(self, *workers: Scripted) -> None:
        super().__init__(BrokenExecutor)
        self._workers = list(workers)
        self.losses: list[int | None] = []

    def stats(self) -> Any:
        raise NotImplementedError

    def _compute(
        self, plan: Any, units: Sequence[WorkUnit], advanced: Callable[[int], None]
    ) -> Generator[FinishedUnit, None, None]:
        yield from self._run(Job(plan, None, units, advanced), 2)

    def _hire(self, job: Job) -> None:
        """Those that are there do."""

    def _give_up_or_go_on(self, unit: WorkUnit | None, error: BaseException) -> None:
        self.losses.append(None if unit is None else unit.index)

    def run(self, plan: Any) -> tuple[list[int], int]:
        told: list[int] = []
        done = [finished.index for finished in self.compute(plan, UNITS, told.append)]
        return sorted(done), sum(told)


def a_plan() -> Any:
    return SimpleNamespace(work_of=lambda unit: 10)


@pytest.mark.parametrize("late_answer", [None, BenchError("it cannot be loaded here")])
def test_a_worker_that_was_slow_to_start_gets_the_plan_of_now(late_answer: Any) -> None:
    loading: Future[Any] = Future()
    slow = Scripted(loading)
    scheduler = Scheduler(Scripted(), slow)
    first, second = a_plan(), a_plan()
    assert scheduler.run(first) == ([0, 1, 2, 3], 40) and slow.units == []
    if late_answer is None:
        loading.set_result(None)
    else:
        loading.set_exception(late_answer)
    assert scheduler.run(second) == ([0, 1, 2, 3], 40)
    assert slow.plans == [first, second] and slow.units and all(plan is second for plan, _ in slow.units)
    assert scheduler.losses == []


def test_a_lost_workers_unit_comes_back_with_its_work_and_goes_to_another() -> None:
    dying, other = Scripted(fails_at=0), Scripted()
    scheduler = Scheduler(dying, other)
    assert scheduler.run(a_plan()) == ([0, 1, 2, 3], 40)
    assert scheduler.losses == [0] and dying.stopped and scheduler._workers == [other]
    assert {index for _, index in other.units} == {0, 1, 2, 3}


class Wrapped(BrokenExecutor):
    """As Ray wraps what a worker has raised."""

    cause = BenchError("NaN")


@pytest.mark.parametrize(
    ("error", "raised"), [(BenchError("NaN"), BenchError), (ValueError("NaN"), ValueError), (Wrapped(), BenchError)]
)
def test_an_error_that_costs_no_worker_ends_the_run_and_those_that_are_at_work(
    error: Exception, raised: type[Exception]
) -> None:
    failing, busy = Scripted(), Scripted()
    failing.compute = lambda unit: answer(error)  # type: ignore[method-assign,assignment]
    busy.compute = lambda unit: Future()  # type: ignore[method-assign,assignment]
    failing.progress = busy.progress = lambda: (1, 2)  # type: ignore[method-assign]
    scheduler = Scheduler(failing, busy)
    with pytest.raises(raised, match="NaN"):
        scheduler.run(a_plan())
    assert busy.stopped and scheduler._workers == [failing]
