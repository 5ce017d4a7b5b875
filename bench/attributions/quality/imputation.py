"""Removing pixels so that what is left says nothing of them: noisy linear imputation, the noise left to the caller.

Source: Rong, Leemann, Borisov, Kasneci, Kasneci, "A consistent and efficient evaluation strategy for attribution
methods", ICML 2022 (ROAD).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_TOLERANCE = 1e-5
_LOOK_EVERY = 10
_TINY = 1e-30


def impute(images: Tensor, removed: Tensor) -> Tensor:
    """Images whose removed pixels are each the weighted mean of their neighbours, removed ones too.

    The four nearest weigh 1/6, the four diagonal ones 1/12; where some lie outside the image, the others' weights are
    divided by their sum. That is one linear system an image, symmetric and positive definite, which conjugate gradients
    solve for all images at once; each image stops by itself.

    Args:
        images: (N, C, H, W).
        removed: (N, H, W) bool; at least one pixel of each image must stay.

    Returns:
        (N, C, H, W); pixels that are not removed are as they were.
    """
    unknown = removed[:, None].to(images.dtype)
    total = _neighbours(torch.ones_like(images[:1, :1]))
    known = images * (1.0 - unknown)
    mean = known.sum((2, 3), keepdim=True) / (1.0 - unknown).sum((2, 3), keepdim=True)
    found = _conjugate_gradients(
        lambda values: unknown * (total * values - _neighbours(values)), unknown * _neighbours(known), unknown * mean
    )
    return known + found


def _neighbours(values: Tensor) -> Tensor:
    """The weighted sum of each pixel's neighbours: ([1, 2, 1] x [1, 2, 1] - 4) / 12, ten times as fast as conv2d."""
    rows = values + values
    rows[..., 1:] += values[..., :-1]
    rows[..., :-1] += values[..., 1:]
    both = rows + rows
    both[..., 1:, :] += rows[..., :-1, :]
    both[..., :-1, :] += rows[..., 1:, :]
    return both.div_(12.0).sub_(values, alpha=1.0 / 3.0)


def _conjugate_gradients(apply: Callable[[Tensor], Tensor], right: Tensor, start: Tensor) -> Tensor:
    """x with apply(x) = right, for each image and channel by itself."""

    def square(values: Tensor) -> Tensor:
        return values.square().sum((2, 3), keepdim=True)

    found, residual = start, right - apply(start)
    direction, length = residual, square(residual)
    enough = _TOLERANCE**2 * torch.maximum(square(right), length)
    for number in range(right.shape[2] * right.shape[3]):
        if number % _LOOK_EVERY == 0 and not bool((length > enough).any()):
            break
        image = apply(direction)
        curvature = (direction * image).sum((2, 3), keepdim=True).clamp_min(_TINY)
        step = torch.where(length > enough, length / curvature, 0.0)
        found = found + step * direction
        residual = residual - step * image
        before, length = length, square(residual)
        direction = residual + length / before.clamp_min(_TINY) * direction
    return found
