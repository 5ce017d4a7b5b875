"""What shows a training: bars for target maps and epochs, a line for each epoch; TensorBoard's files."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.cli.output.progress import Display
from bench.core.errors import BenchError
from bench.core.files import clear_disk_errors
from bench.training.epochs import Progress as TrainingProgress


class TrainingDisplay(Display):
    """The display of a training; its methods `show_...` are what the trainer reports to."""

    def __init__(self, console: Console, title: str, epochs: int) -> None:
        columns = TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn()
        super().__init__(*columns, TextColumn("left"), TimeRemainingColumn(), console=console)
        self._targets = self.add_task("target maps", visible=False, total=1)
        self._epochs = self.add_task(title, total=epochs, start=False)

    def show_targets(self, done: int, total: int) -> None:
        self.update(self._targets, completed=done, total=total, visible=True)

    def show_epochs(self, state: TrainingProgress) -> None:
        self.show_epochs_of(self._epochs, state)
        if state.row is not None:
            terms = "  ".join(f"{name} {value:.4g}" for name, value in state.row.items() if name != "epoch")
            self.console.print(f"epoch {state.epoch}  {terms}", soft_wrap=True)


class EventFiles:
    """TensorBoard event files: one scalar a column of training.csv, one point an epoch.

    Writes `folder/events.out.tfevents.*`; a resumed training adds a file that goes on where the last one ended."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise BenchError(
                "event files need the package tensorboard; install it with pip install 'ribench[tensorboard]'.",
                option="tensorboard",
            ) from error
        with clear_disk_errors(folder):
            self._writer = SummaryWriter(str(folder))

    def close(self) -> None:
        self._writer.close()

    def show_epochs(self, state: TrainingProgress) -> None:
        if state.row is None:
            return
        for name, value in state.row.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, state.epoch)
        self._writer.flush()
