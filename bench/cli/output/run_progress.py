"""Runs one after another, and their progress display: one bar a run, with time left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import TaskID, TaskProgressColumn

from bench.cli.interrupts import keep
from bench.cli.option_groups import at_work
from bench.cli.output.progress import Display
from bench.cli.output.rendering import messages
from bench.executors.base import Executor
from bench.runs.execute import Observer, RunOutcome, execute
from bench.runs.failures import Failures
from bench.runs.plan import RunPlan

if TYPE_CHECKING:
    from bench.studies.scales import TrainedModel
    from bench.training.epochs import Progress


Taken = TypeVar("Taken")


def carry_out(
    plans: Sequence[RunPlan], leaderboard: Path, executor: Executor, failures: Failures, *,
    take: Callable[[RunOutcome], Taken], fresh: bool, go_on: str,
) -> list[Taken]:  # fmt: skip
    """Run the plans, each under a bar of its own; what `take` makes of each outcome.

    Args:
        take: what fails in it is the run's failure too.
        go_on: as RunProgress has it.
    """
    taken = []
    failures.fast |= len(plans) == 1 and not failures.found
    with at_work(executor):
        for position, plan in enumerate(plans, start=1):
            count = f"[{position}/{len(plans)}] " if len(plans) > 1 else ""
            with failures.of(plan.entry.card.name, plan.suite.name):
                # closed before its table is printed, so that a piped standard output gets tables alone
                with RunProgress(messages(), go_on) as progress:
                    watch = progress.watch(plan, count)
                    outcome = execute(plan, leaderboard, fresh=fresh, observer=watch, executor=executor)
                taken.append(take(outcome))
    return taken


class RunProgress(Display):
    """The display of a run."""

    def __init__(self, console: Console, go_on: str = "run the same command again to go on") -> None:
        """Take what is to be done after a stop, to go on where it was; empty where nothing is kept."""
        self._go_on = go_on
        super().__init__(TaskProgressColumn(), console=console)

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

    def run_started(self, done: int) -> None:
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
