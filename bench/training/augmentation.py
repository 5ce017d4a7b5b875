"""Random crops and flips, the same for an image and its target map."""

from __future__ import annotations

import torch
from torch import Tensor

PADDING = 4


def crop_and_flip(images: Tensor, maps: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """Zero-pad by 4, crop at a random offset, flip left-right with probability 1/2; per example, batched.

    Args:
        images: (N, C, H, W).
        maps: (N, C, H, W) target maps that must move with their images, or None.

    Source: IR section 2.2 (joint transform of image and map), LGA section 3.
    """
    count, _, height, width = images.shape
    top = torch.randint(2 * PADDING + 1, (count,), generator=generator)
    left = torch.randint(2 * PADDING + 1, (count,), generator=generator)
    flipped = torch.rand(count, generator=generator) < 0.5
    rows = top[:, None] + torch.arange(height)
    columns = left[:, None] + torch.arange(width)
    columns = torch.where(flipped[:, None], columns.flip(1), columns)
    rows, columns = rows.to(images.device)[:, :, None], columns.to(images.device)[:, None, :]
    examples = torch.arange(count, device=images.device)[:, None, None]

    def moved(pixels: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(pixels, [PADDING] * 4)
        # indexing with a slice between index tensors puts the channels last
        return padded[examples, :, rows, columns].permute(0, 3, 1, 2).contiguous()

    return moved(images), None if maps is None else moved(maps)
