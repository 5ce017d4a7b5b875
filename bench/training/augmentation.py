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
    chosen = _Window(rows.to(images.device), columns.to(images.device))
    return chosen.of(images), None if maps is None else chosen.of(maps)


class _Window:
    """Rows (N, H) and columns (N, W) of the padded image that each example keeps."""

    def __init__(self, rows: Tensor, columns: Tensor) -> None:
        self.rows, self.columns = rows, columns

    def of(self, images: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(images, [PADDING] * 4)
        examples = torch.arange(len(images), device=images.device)[:, None, None]
        # indexing with a slice between index tensors puts the channels last
        picked = padded[examples, :, self.rows[:, :, None], self.columns[:, None, :]]
        return picked.permute(0, 3, 1, 2).contiguous()
