"""What runs in a Ray worker: one model at a time, one unit at a time. It reads and writes no file of the run."""

from __future__ import annotations

import platform

import torch
from torch import nn

import bench
from bench.core.devices import resolve_device
from bench.core.errors import BenchError
from bench.executors.shipping import PackedPlan, PackedSplit, Refusal, unpack_plan, unpack_split
from bench.runs.plan import RunPlan, WorkUnit
from bench.runs.units import FinishedUnit, compute_unit


def versions() -> dict[str, str]:
    """What must be the same in every process of a run."""
    return {"ribench": bench.__version__, "torch": str(torch.__version__), "Python": platform.python_version()}


class UnitWorker:
    """The actor's class. `load` comes first, then any number of `compute`; `progress` may be asked at any time."""

    def __init__(self, threads: int, device: str) -> None:
        self._threads = threads
        self._device = device
        self._plan: RunPlan | None = None
        self._model: nn.Module | None = None
        self._batch_size = 1
        self._at = (-1, 0)

    def load(self, packed: PackedPlan, dataset: PackedSplit, training: PackedSplit | None) -> dict[str, str] | Refusal:
        """Take over a plan and load its model; gives `versions()`."""
        self._use_threads()
        self._plan = self._model = None
        try:
            self._plan, self._model = unpack_plan(
                packed,
                resolve_device(self._device),
                unpack_split(dataset),
                unpack_split(training) if training is not None else None,
            )
        except BenchError as error:
            return Refusal(f"on a Ray worker: {error}")
        self._batch_size = self._plan.batch_size
        return versions()

    def compute(self, unit: WorkUnit) -> FinishedUnit | Refusal:
        """Evaluate one unit of the plan."""
        self._use_threads()
        self._at = (unit.index, 0)
        if self._plan is None or self._model is None:
            raise RuntimeError("no plan was loaded")
        try:
            finished = compute_unit(self._plan, unit, self._model, self._batch_size, self._advanced)
        except BenchError as error:
            return Refusal(str(error))
        self._batch_size = finished.batch_size
        return finished

    def progress(self) -> tuple[int, int]:
        """The unit at hand, and how much of its work is done, in the measure of `RunPlan.work`."""
        return self._at

    def _advanced(self, amount: int) -> None:
        index, done = self._at
        self._at = (index, done + amount)

    def _use_threads(self) -> None:
        # OpenMP's number of threads belongs to the thread that asks, and Ray calls from several
        torch.set_num_threads(self._threads)
