"""Progress of what takes long: bars at a terminal, and elsewhere a plain line every half a minute."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task, TaskID

if TYPE_CHECKING:
    from bench.training.epochs import Progress as TrainingProgress

PLAIN_SECONDS = 30.0


class Display(Progress):
    """A rich progress display that also speaks where there is no terminal: in a log file or a job's output."""

    def __init__(self, *columns: str | ProgressColumn, console: Console) -> None:
        super().__init__(*columns, console=console)
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
