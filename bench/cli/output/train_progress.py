"""The progress display of `bench train`: a bar for the target maps, one for the epochs, a line for each epoch."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from rich.console import Console

    from bench.training.epochs import Progress as TrainingProgress


class TrainingDisplay:
    """A rich progress display; its methods are what the trainer reports to."""

    def __init__(self, console: Console, title: str, epochs: int) -> None:
        columns = TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn()
        self._progress = Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console)
        self._targets = self._progress.add_task("target maps", visible=False, total=1)
        self._epochs = self._progress.add_task(title, total=epochs)

    def __enter__(self) -> TrainingDisplay:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show_targets(self, done: int, total: int) -> None:
        self._progress.update(self._targets, completed=done, total=total, visible=True)

    def show_epochs(self, state: TrainingProgress) -> None:
        self._progress.update(self._epochs, completed=state.epoch + state.step / max(1, state.steps))
        if state.row is not None:
            terms = "  ".join(f"{name} {value:.4g}" for name, value in state.row.items() if name != "epoch")
            self._progress.console.print(f"epoch {state.epoch}  {terms}", soft_wrap=True)
