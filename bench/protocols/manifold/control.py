"""The control of the distance to the manifold: a perturbation where it does not belong."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.attacks.norms import distance, per_example
from bench.attacks.projections import room_to_move

_LARGEST_FACTOR = 4.0
"""Beyond it the box cuts most of what moves, and the texture is another."""
_HALVINGS = 40


def turned_images(images: Tensor, changes: Tensor) -> Tensor:
    """Each image plus its perturbation turned by a quarter, as far away in L2 as without the turn and inside [0, 1].

    The turned perturbation is scaled, then cut to the pixel box; the scale is found by bisection, since the length
    rises with it.

    Args:
        images: (N, C, H, H) in [0, 1].
        changes: (N, C, H, H), such that images + changes is in [0, 1].

    Returns:
        (N, C, H, H); NaN where it would have to be more than four times as large, and where nothing was changed.
    """
    turned = changes.rot90(dims=(2, 3))
    size, room = turned.abs(), room_to_move(turned, images)
    length = distance(changes, "l2")
    low, high = torch.zeros_like(length), torch.full_like(length, _LARGEST_FACTOR)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        short = distance(torch.minimum(size * per_example(middle, size), room), "l2") < length
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    moved = torch.minimum(size * per_example(high, size), room)
    reached = (distance(moved, "l2") >= length) & (length > 0)
    return torch.where(per_example(reached, images), images + moved.copysign(turned), torch.nan)
