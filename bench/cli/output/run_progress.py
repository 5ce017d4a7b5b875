"""The progress display of `bench run`: one bar a run, with time left."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bench.cli.interrupts import keep
from bench.cli.output.progress import Display
from bench.leaderboard.evidence.runs import RunFolder
from bench.runs.execute import Observer, RunOutcome
from bench.runs.plan import RunPlan

if TYPE_CHECKING:
    from bench.studies.scales import TrainedModel
    from bench.training.epochs import Progress


class RunProgress(Display):
    """The display of a run."""

    def __init__(self, console: Console, go_on: str = "run the same command again to go on") -> None:
        """Take what is to be done after a stop, to go on where it was; empty where nothing is kept."""
        self._go_on = go_on
        bar = BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()
        super().__init__(TextColumn("{task.description}", markup=False), *bar, console=console)

    def watch(self, plan: RunPlan, count: str = "") -> Observer:
        """An observer whose bar is `plan`'s; `count` goes before its name, e.g. `[2/6] `."""
        name = f"{count}{plan.entry.card.id} under {plan.suite.name}"
        return _Watcher(self, self.add_task(name, total=plan.work), self._go_on)

    def watch_training(self, model: TrainedModel, count: str) -> Callable[[Progress], None]:
        """What a training tells of its target maps and epochs goes to bars of its own."""
        maps = self.add_task(f"{count}target maps of {model.id}", total=1, visible=False)
        task = self.add_task(f"{count}train {model.id}", total=1, start=False)

        def tell(state: Progress) -> None:
            if state.epochs == 0:
                self.update(maps, completed=state.step, total=state.steps, visible=True)
                return
            self.update(maps, visible=False)
            self.show_epochs_of(task, state)

        return tell


class _Watcher(Observer):
    def __init__(self, progress: Display, task: TaskID, go_on: str) -> None:
        self._progress, self._task, self._go_on = progress, task, go_on

    def run_started(self, plan: RunPlan, run: RunFolder, done: int) -> None:  # noqa: ARG002
        self._progress.update(self._task, completed=done, resumed=done)

    def run_stopped(self, plan: RunPlan, kept: int) -> None:
        if not self._go_on:
            return keep("nothing is kept")
        (begun,) = (task.completed for task in self._progress.tasks if task.id == self._task)
        share, lost = 100 * kept / plan.work, 100 * max(0.0, begun - kept) / plan.work
        under_way = f", {lost:.0f} % that was under way is not" if lost >= 1 else ""
        if plan.protocol.keeps_under_way and kept < plan.work:
            under_way = ", what was under way too, up to its last half minute"
        name = f"{plan.entry.card.id} under {plan.suite.name}"
        return keep(f"{share:.0f} % of {name} is kept{under_way}; {self._go_on}")

    def advanced(self, amount: int) -> None:
        self._progress.advance(self._task, amount)

    def run_finished(self, outcome: RunOutcome) -> None:
        self._progress.update(self._task, completed=outcome.plan.work)
