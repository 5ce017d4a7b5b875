"""Where units are computed: what every executor promises, and the one that computes in this process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from bench.core.devices import device_label
from bench.runs.plan import RunPlan, WorkUnit
from bench.runs.units import FinishedUnit, compute_unit, ready_model


class Executor(ABC):
    """Computes the units of plans, while its context is open where it needs one.

    What becomes of the results, and which units are still missing, is not its concern.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(  # noqa: B027  (most have nothing to end)
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what the executor has started."""

    @abstractmethod
    def metadata(self) -> dict[str, Any]:
        """What the manifest says of it: `executor` (its name and size) and `threads` (of torch, in each process)."""

    def planning_device(self, device: str) -> str:
        """The device that plans are checked on, where runs are to be computed on `device`."""
        return device

    @abstractmethod
    def device_of(self, plan: RunPlan) -> str:
        """The device that a plan's units will be computed on, as far as that is known beforehand."""

    @abstractmethod
    def compute(
        self, plan: RunPlan, units: Sequence[WorkUnit], advanced: Callable[[int], None]
    ) -> Generator[FinishedUnit, None, None]:
        """Compute `units`, and give each as soon as it is done, in any order.

        Closing the generator early drops the units that are not done.

        Args:
            advanced: called with the amount of work newly done, in the measure of `RunPlan.work`; negative where work
                was lost and has to be done again.

        Raises:
            BenchError: the model fails on an image, or the executor cannot go on.
        """


class LocalExecutor(Executor):
    """Computes in this process, unit after unit."""

    def metadata(self) -> dict[str, Any]:
        return {"executor": {"name": "local", "workers": 1}, "threads": torch.get_num_threads()}

    def device_of(self, plan: RunPlan) -> str:
        return device_label(plan.device)

    def compute(
        self, plan: RunPlan, units: Sequence[WorkUnit], advanced: Callable[[int], None]
    ) -> Generator[FinishedUnit, None, None]:
        if units:
            yield from compute_here(plan, units, ready_model(plan), advanced)


def compute_here(
    plan: RunPlan, units: Sequence[WorkUnit], model: nn.Module, advanced: Callable[[int], None]
) -> Generator[FinishedUnit, None, None]:
    """Compute units in this thread, one after another; `model` is of `ready_model`."""
    batch_size = plan.batch_size
    for unit in units:
        finished = compute_unit(plan, unit, model, batch_size, advanced)
        batch_size = finished.batch_size
        yield finished
