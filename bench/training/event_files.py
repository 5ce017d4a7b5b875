"""TensorBoard event files of a training: one scalar a column of training.csv, one point an epoch."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from bench.core.errors import BenchError
from bench.core.files import clear_disk_errors
from bench.training.epochs import Progress


class EventFiles:
    """Writes `folder/events.out.tfevents.*`; a resumed training adds a file that goes on where the last one ended."""

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

    def __enter__(self) -> EventFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def show_epochs(self, state: Progress) -> None:
        if state.row is None:
            return
        for name, value in state.row.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, state.epoch)
        self._writer.flush()
