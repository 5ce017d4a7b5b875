"""What computes units wherever it is put: in a thread of this process, in a helper process, in a Ray worker.

It has one plan at a time and computes one unit at a time. It reads and writes no file of the run.
"""

from __future__ import annotations

import platform
from collections.abc import MutableSequence

import torch
from torch import nn

import bench
from bench.core.devices import resolve_device
from bench.data import ImageDataset
from bench.executors.shipping import PackedPlan, PackedSplit, unpack_plan
from bench.runs.pieces import SlowUnit
from bench.runs.plan import RunPlan, WorkUnit
from bench.runs.units import FinishedUnit, compute_unit


def versions() -> dict[str, str]:
    """What must be the same in every process of a run."""
    return {"ribench": bench.__version__, "torch": str(torch.__version__), "Python": platform.python_version()}


class UnitWorker:
    """`load` or `take` comes first, then any number of `compute`; `progress` may be asked at any time.

    Attributes:
        at: the index of the unit at hand, and how much of its work is done, in the measure of `RunPlan.work`.
        stopped: once set, the unit at hand ends by StoppedError when it next calls the net.
    """

    def __init__(self) -> None:
        self.at: MutableSequence[int] = [-1, 0]
        self.stopped = False
        self._plan: RunPlan | None = None
        self._model: nn.Module | None = None
        self._batch_size = self._threads = 1

    def load(
        self,
        packed: PackedPlan,
        dataset: PackedSplit | ImageDataset,
        training: PackedSplit | ImageDataset | None,
        device: str,
        threads: int,
    ) -> dict[str, str]:
        """Take over a plan that has travelled, and load its model; gives `versions()`.

        Raises:
            BenchError: the model cannot be loaded in this process.
        """
        torch.set_num_threads(threads)
        self._plan = self._model = None
        self.take(*unpack_plan(packed, resolve_device(device), dataset, training), threads)
        return versions()

    def take(self, plan: RunPlan, model: nn.Module, threads: int) -> None:
        """Take over a plan of this process with its model, of `ready_model`."""
        self._plan, self._model, self._threads = plan, model, threads
        self._batch_size = plan.batch_size

    def compute(self, unit: WorkUnit) -> FinishedUnit | SlowUnit:
        """Evaluate one unit of the plan, or give it up to be cut; raises BenchError where the model fails."""
        # OpenMP's number of threads belongs to the thread that asks, and calls come from several
        torch.set_num_threads(self._threads)
        if self._plan is None or self._model is None:
            raise RuntimeError("no plan was loaded")
        self.at[1] = 0  # before the index, so that a reader never sees another unit's progress
        self.at[0] = unit.index
        finished = compute_unit(
            self._plan, unit, self._model, self._batch_size, on_progress=self._advanced, stopped=lambda: self.stopped
        )
        if isinstance(finished, FinishedUnit):
            self._batch_size = finished.stats.batch_size
        return finished

    def progress(self) -> tuple[int, int]:
        """The index of the unit at hand, and how much of its work is done."""
        return self.at[0], self.at[1]

    def _advanced(self, amount: int) -> None:
        self.at[1] += amount
