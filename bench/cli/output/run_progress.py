"""The progress display of `bench run`: one bar a run, with time left."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bench.leaderboard.evidence.runs import RunFolder
from bench.runs.execute import Observer, RunOutcome
from bench.runs.plan import RunPlan


class RunProgress(Progress):
    """A rich progress display of a run."""

    def __init__(self, console: Console) -> None:
        bar = BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()
        super().__init__(TextColumn("{task.description}", markup=False), *bar, console=console)

    def watch(self, plan: RunPlan, count: str = "") -> Observer:
        """An observer whose bar is `plan`'s; `count` goes before its name, e.g. `[2/6] `."""
        name = f"{count}{plan.entry.card.id} under {plan.suite.name}"
        return _Watcher(self, self.add_task(name, total=plan.work))


class _Watcher(Observer):
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def run_started(self, plan: RunPlan, run: RunFolder, done: int) -> None:  # noqa: ARG002
        self._progress.update(self._task, completed=done)

    def advanced(self, amount: int) -> None:
        self._progress.advance(self._task, amount)

    def run_finished(self, outcome: RunOutcome) -> None:
        self._progress.update(self._task, completed=outcome.plan.work)
