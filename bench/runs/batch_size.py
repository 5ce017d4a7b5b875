"""How many images go through a net at once: chosen by device and memory, halved when memory runs out."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bench.core.errors import BenchError
from bench.core.memory import free_memory, is_out_of_memory
from bench.protocols import EvaluationContext, Protocol, UnitResult

if TYPE_CHECKING:
    from bench.runs.plan import RunPlan

logger = logging.getLogger(__name__)

MOST = {"cpu": 256, "cuda": 2048}
"""More gains little: a CPU's units have 250 images, of which the cascade makes up to nine pairs each."""
_SHARE = 0.5
"""Of the free memory; the rest is for others, and for what the estimate leaves out."""
_PROCESS = 500 << 20
"""Bytes of a process that has imported everything and holds a data set of small images."""
_UNIT_SHARE = 0.25
"""Of the free memory, for what a unit holds beside its batches."""
_COPIES = 40
"""An image's bytes in float32, so many times."""
_GRAPHS = 3
"""Activations are kept once for a gradient; attacks hold a few more tensors, second derivatives twice as many."""


def automatic_batch_size(model: nn.Module, images: Tensor, device: torch.device) -> int:
    """The largest power of two up to MOST whose activations fit the free memory.

    Args:
        model: on `device`, eval mode.
        images: (N, C, H, W), a few on `device`, that go through the net once.
    """
    most = MOST.get(device.type, MOST["cpu"])
    free = _free_memory(device)
    needed = _GRAPHS * _kept_for_gradient(model, images) / len(images)
    if free is None or needed * most <= _SHARE * free:
        return most
    return 1 << max(0, int(_SHARE * free / needed).bit_length() - 1)


def images_within_memory(shape: Sequence[int], device: torch.device) -> int | None:
    """Images (C, H, W) of a work unit that fills the device; None on a CPU, where larger ones gain little.

    Beside its batches a unit holds its images, what was found for them, and both in float64 while they are judged.
    """
    free = _free_memory(device) if device.type == "cuda" else None
    return None if free is None else max(1, int(_UNIT_SHARE * free / (_COPIES * 4 * math.prod(shape))))


def processes_within_memory(model: nn.Module, plan: RunPlan) -> int:
    """How many processes with the plan's batches fit the free memory, this one included; at least 1.

    Args:
        model: of `ready_model`.
    """
    free = _free_memory(plan.device)
    if free is None:
        return 1
    images = plan.dataset.pixels(slice(0, 3)).to(plan.device)
    needed = _GRAPHS * _kept_for_gradient(model, images) / len(images) * plan.batch_size
    return max(1, int(_SHARE * free / (needed + _PROCESS)))


def evaluate_within_memory(protocol: Protocol, context: EvaluationContext) -> tuple[UnitResult, int]:
    """Evaluate a work unit, from its beginning with half the batch whenever memory runs out; also the batch that did.

    Raises:
        BenchError: there is not enough memory for a single image, or for what does not go in batches.
    """
    while True:
        progress = _Progress(context)
        try:
            return protocol.checked_evaluate(dataclasses.replace(context, on_progress=progress)), context.batch_size
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # only here: while the error is handled its traceback holds the tensors
        progress.take_back()
        if context.device.type == "cuda":
            torch.cuda.empty_cache()
        if context.batch_size == 1 or not protocol.batch_size_bounds_memory:
            what = "a single image" if context.batch_size == 1 else "this suite at any batch size"
            raise no_room(context.device, context.model_name, what)
        half = context.batch_size // 2
        logger.warning("out of memory with batches of %d images; going on with %d", context.batch_size, half)
        context = dataclasses.replace(context, batch_size=half)


def no_room(device: torch.device, model_name: str, what: str) -> BenchError:
    """The one line for what half a batch cannot mend."""
    return BenchError(
        f"{device} has not enough memory for {model_name} with {what}; use another device, or end what else uses its "
        "memory.",
        option="device",
    )


class _Progress:
    """Passes progress on, and takes it back when the work has to be done again."""

    def __init__(self, context: EvaluationContext) -> None:
        self._report, self._reported = context.on_progress, 0

    def __call__(self, amount: int) -> None:
        self._reported += amount
        self._report(amount)

    def take_back(self) -> None:
        if self._reported:
            self._report(-self._reported)


def _kept_for_gradient(model: nn.Module, images: Tensor) -> int:
    """Bytes that autograd keeps of a forward pass, less the net's own parameters and buffers."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(images.detach().requires_grad_(True))
    return sum(kept.values()) + int(logits.untyped_storage().nbytes()) + images.untyped_storage().nbytes()


def _free_memory(device: torch.device) -> int | None:
    """Bytes that a process could still take; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()
