"""Progress of what takes long: bars at a terminal, elsewhere a plain line every half a minute; TensorBoard's files."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bench.core.errors import BenchError
from bench.core.files import clear_disk_errors

if TYPE_CHECKING:
    from bench.training.epochs import Progress as TrainingProgress

PLAIN_SECONDS = 30.0


class Display(Progress):
    """A rich progress display that also speaks where there is no terminal: in a log file or a job's output."""

    def __init__(self, *beside_bar: ProgressColumn, console: Console) -> None:
        columns = TextColumn("{task.description}", markup=False), BarColumn(), *beside_bar, TimeElapsedColumn()
        super().__init__(*columns, TextColumn("left"), TimeRemainingColumn(), console=console)
        self._over = threading.Event()

    def start(self) -> None:
        super().start()
        if not self.console.is_terminal:
            threading.Thread(target=self._speak, name="bench-progress", daemon=True).start()

    def stop(self) -> None:
        self._over.set()
        super().stop()

    def show_epochs_of(self, task: TaskID, state: TrainingProgress) -> None:
        """Move a training's bar; target maps, and epochs that a training before it had done, count for no pace."""
        (known,) = (one for one in self.tasks if one.id == task)
        if not known.started:
            self.start_task(task)
        done, resumed = state.epoch + state.step / max(1, state.steps), known.fields.get("resumed", state.epoch)
        self.update(task, completed=done, total=state.epochs, resumed=resumed)

    def _speak(self) -> None:
        while not self._over.wait(PLAIN_SECONDS):
            for task in self.tasks:
                if task.visible and not task.finished:
                    self.console.print(plain_line(task), soft_wrap=True)


def plain_line(task: Task) -> str:
    """How far a task is, in one line. Its field `resumed` is what was done before it began here."""
    passed, done = task.elapsed or 0.0, task.completed - task.fields.get("resumed", 0)
    said = f"{task.description}: {int(task.percentage)} %, {_clock(passed)} so far"
    left = passed * task.remaining / done if task.remaining is not None and done > 0 else None
    return said if left is None else f"{said}, about {_clock(left)} left"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


class TrainingDisplay(Display):
    """The display of a training; its methods `show_...` are what the trainer reports to."""

    def __init__(self, console: Console, title: str, epochs: int) -> None:
        super().__init__(console=console)
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
