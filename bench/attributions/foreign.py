"""Maps of methods that are not ours: called with torch's generators seeded, and refused in one line if they are bad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bench.core.errors import BenchError, in_one_line, others_code
from bench.core.torch_state import random_numbers_of, twice_differentiable


def checked_maps(call: Callable[[], Any], images: Tensor, name: str, *, key: tuple[int, Tensor], graph: bool) -> Tensor:
    """What `call` returns, on the device and of the type of `images` (N, C, H, W).

    Args:
        name: whose maps they are, for errors.
        key: the run's seed and the example ids (N,), of which the first keys what the method draws from torch.
        graph: whether the maps are to be differentiated.

    Raises:
        BenchError: the call fails, or returns something else than finite maps (N, C, H, W) or (N, 1, H, W).
    """
    numbers = (key[0], name, *key[1][:1].tolist())
    with (
        others_code(lambda error: f"{name} failed: {in_one_line(error)}."), torch.enable_grad(),
        twice_differentiable(graph), random_numbers_of(images.device, *numbers),
    ):  # fmt: skip
        found = call()
    if not isinstance(found, Tensor) or not found.is_floating_point():
        kind = f"tensor of {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
        raise BenchError(f"{name} returned a {kind}; it must return a tensor of floating-point numbers.")
    count, channels, *size = images.shape
    if found.shape not in ((count, channels, *size), (count, 1, *size)):
        raise BenchError(
            f"{name} returned maps of shape {tuple(found.shape)} for images of shape {tuple(images.shape)}; return "
            "the images' shape, or one channel."
        )
    found = found.to(images)  # what is finite in float64 may not be here
    broken = int((~found.flatten(1).isfinite().all(1)).sum())
    if broken:
        raise BenchError(f"{name} returned NaN or infinite maps of {broken} of {count} images.")
    return found
