"""Epochs that survive a stop: each is written down, and a training that is started again goes on after the last."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from bench.core.errors import BenchError
from bench.core.files import csv_text, locked, write_atomically
from bench.core.torch_state import write_state

logger = logging.getLogger(__name__)
CHECKPOINT = "checkpoint.pt"
LOCK = ".lock"


def alone_in(folder: Path) -> AbstractContextManager[None]:
    """Keep other trainings out of a work folder; raises BenchError where one is at work there."""
    return locked(folder / LOCK, f"another training is at work in {folder}; wait for it, or choose another model id.")


@dataclass(frozen=True, slots=True)
class Progress:
    """What a training tells those who watch it, after every few steps; `epochs` is 0 for target maps made before it."""

    epoch: int
    epochs: int
    step: int
    steps: int
    row: dict[str, float] | None = None


class Stateful(Protocol):
    """A net, an optimiser, or what else has to be as it was when a training goes on."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


@dataclass(slots=True)
class Epochs:
    """The epochs of one training.

    Attributes:
        folder: gets `checkpoint.pt` and `training.csv` after each epoch.
        fingerprint: digest of everything that shapes the weights; a state of another training is never resumed.
        parts: what is saved, by name.
        total: how many epochs the schedule has.
        rows: one an epoch, with the mean of each term of the loss.
        seconds: of all epochs, those of an earlier process included.
    """

    folder: Path
    fingerprint: str
    parts: Mapping[str, Stateful]
    total: int
    on_progress: Callable[[Progress], None] = lambda _: None
    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0

    def run(self, epoch: Callable[[int], dict[str, float]], until: int | None = None) -> None:
        """Do those that are missing.

        Args:
            epoch: trains epoch 0, 1, ...; returns its row.
            until: stop after so many epochs; all by default.

        Raises:
            BenchError: a term of the loss is not a number, the state found is damaged or of another training, or
                another process trains in that folder.
        """
        with alone_in(self.folder):
            self._resume()
            last = self.total if until is None else min(until, self.total)
            if len(self.rows) > last:
                raise BenchError(f"{len(self.rows)} epochs are done already, not {last}; start afresh.", option="fresh")
            for number in range(len(self.rows), last):
                began = time.perf_counter()
                row = {"epoch": float(number + 1)} | epoch(number)
                self._require_finite(row)
                row["seconds"] = round(time.perf_counter() - began, 2)
                self.seconds += row["seconds"]
                self.rows.append(row)
                self._save()
                self.on_progress(Progress(number + 1, self.total, 0, 1, row=row))

    def mean(self, epoch: int, steps: int, terms: Iterable[dict[str, Tensor]]) -> dict[str, float]:
        """The row of an epoch: what its steps give, each its share of the mean, summed up; those who watch are told."""
        totals: dict[str, Tensor] = {}
        for step, found in enumerate(terms):
            for name, value in found.items():
                totals[name] = totals[name] + value if name in totals else value
            if step % 10 == 0:
                self.on_progress(Progress(epoch, self.total, step, steps))
        return {name: float(total) for name, total in totals.items()}

    def _require_finite(self, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            if not math.isfinite(value):
                kept = f" The last good state is in {self.folder}." if self.rows else ""
                raise BenchError(
                    f"training diverged: the term {name!r} is {value} in epoch {int(row['epoch'])}; "
                    f"lower its weight or the learning rate.{kept}"
                )

    def _save(self) -> None:
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        state = {"fingerprint": self.fingerprint, "parts": parts, "rows": self.rows, "seconds": self.seconds}
        state["torch"] = str(torch.__version__)
        write_state(self.folder / CHECKPOINT, state)
        table = csv_text([self.rows[0], *([f"{row[name]:.6g}" for name in self.rows[0]] for row in self.rows)])
        write_atomically(self.folder / "training.csv", table.encode())

    def _resume(self) -> None:
        path = self.folder / CHECKPOINT
        if not path.is_file():
            return
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            fingerprint, parts = state["fingerprint"], state["parts"]
        except Exception as error:
            raise BenchError(
                f"the unfinished training in {self.folder} cannot be read; start afresh.", option="fresh"
            ) from error
        if fingerprint != self.fingerprint:
            raise BenchError(
                f"{self.folder} holds an unfinished training with other parameters; start afresh.", option="fresh"
            )
        for name, part in self.parts.items():
            part.load_state_dict(parts[name])
        self.rows, self.seconds = list(state["rows"]), float(state["seconds"])
        logger.info("resuming after epoch %d", len(self.rows))
        former, now = state.get("torch"), str(torch.__version__)
        if former not in (None, now):
            logger.warning("the epochs up to %d are of torch %s, the others will be of %s", len(self.rows), former, now)
