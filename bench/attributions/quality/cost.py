"""What maps cost: gradients, forward passes and seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Cost:
    """Of any number of maps: images that went forward through the net, gradients of its logits, microseconds."""

    forward_passes: int = 0
    gradients: int = 0
    microseconds: int = 0


@contextmanager
def metered(model: nn.Module, device: torch.device) -> Iterator[Cost]:
    """Counts what happens to the whole net meanwhile; passes through parts of it are not seen."""
    cost = Cost()

    def count_gradients(gradient: Tensor) -> None:
        cost.gradients += len(gradient)

    def count_images(_: nn.Module, given: tuple[Any, ...], logits: Any) -> None:  # noqa: ARG001
        cost.forward_passes += len(logits)
        if logits.requires_grad:
            logits.register_hook(count_gradients)

    hook, began = model.register_forward_hook(count_images), time.perf_counter()
    try:
        yield cost
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()
    finally:
        hook.remove()
        cost.microseconds = round(1e6 * (time.perf_counter() - began))
