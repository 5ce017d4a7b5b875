"""From attributions of every pixel and channel to one heat map an image, and the scales that heat maps come in."""

from __future__ import annotations

import torch
from torch import Tensor

_TINY = 1e-30


def heat_maps(attributions: Tensor) -> Tensor:
    """Absolute values, summed over channels; (N, C, H, W) -> (N, H, W), differentiable (LGA, section 4.1)."""
    return attributions.abs().sum(1)


def divided_by_max(maps: Tensor) -> Tensor:
    """Each map over its largest value; an all-zero map stays all-zero. (N, H, W) >= 0, differentiable."""
    return maps / maps.flatten(1).amax(1).clamp_min(_TINY)[:, None, None]


def divided_by_mean(maps: Tensor) -> Tensor:
    """Each map over its mean, so that values don't depend on the size of the image. (N, H, W) >= 0, differentiable."""
    return maps / maps.flatten(1).mean(1).clamp_min(_TINY)[:, None, None]


def mass_centres(maps: Tensor) -> Tensor:
    """Mean row and column of each map's mass, in pixels; (N, H, W) >= 0 -> (N, 2), differentiable.

    An all-zero map has its centre in the middle of the image.
    """
    height, width = maps.shape[1:]
    rows, columns = (
        torch.arange(size, dtype=maps.dtype, device=maps.device) - (size - 1) / 2 for size in (height, width)
    )
    scaled = divided_by_max(maps)
    mass = scaled.sum((1, 2)).clamp_min(_TINY)
    vertical = (scaled.sum(2) * rows).sum(1) / mass + (height - 1) / 2
    horizontal = (scaled.sum(1) * columns).sum(1) / mass + (width - 1) / 2
    return torch.stack([vertical, horizontal], dim=1)
