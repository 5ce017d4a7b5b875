"""Steepest-ascent steps and random starts for each norm, batched, with one size per example."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bench.attacks.norms import at_unit_size, distance, per_example
from bench.attacks.projections import room_to_move
from bench.core.threat import Norm

_FEW_PLACES = 2


def steepest_step(gradient: Tensor, images: Tensor, step_size: Tensor, norm: Norm, sparsity: Tensor) -> Tensor:
    """The step of length `step_size` in `norm` along which the linearised loss grows fastest.

    L-inf: the sign. L2: the direction. L1: the sign on the `sparsity` share of pixels with the largest gradient among
    those that the box lets move (Tramer and Boneh 2019; the box: Croce and Hein 2021), each moved equally.

    Args:
        gradient: (N, C, H, W).
        images: (N, C, H, W) current points; used by L1 to leave out pixels at the edge of [0, 1].
        step_size: (N,).
        sparsity: (N,) in (0, 1]; used by L1 only.
    """
    if norm == "linf":
        return gradient.sign().mul_(per_example(step_size, gradient))
    if norm == "l2":
        gradient = at_unit_size(gradient)
        scale = step_size / distance(gradient, "l2").clamp_min_(1e-30)
        return gradient * per_example(scale, gradient)
    direction = gradient.sign()
    magnitude = (room_to_move(gradient, images).sign_() * gradient.abs()).flatten(1)
    enough = (magnitude - _kth_largest(magnitude, sparsity)[:, None]).sign_().add_(1.0).clamp_max_(1.0)
    chosen = enough.mul_(magnitude.sign_())
    chosen.mul_((step_size / chosen.sum(1).clamp_min_(1.0))[:, None])
    return direction.mul_(chosen.view_as(direction))


def _kth_largest(values: Tensor, share: Tensor) -> Tensor:
    """For each row, the value that `share` of the row's entries reach; (N, D), (N,) -> (N,)."""
    count = values.shape[1]
    place = (count - (share * count).long().clamp_(1, count))[:, None]
    return _in_order(values, place).gather(1, place).squeeze(1)


def _in_order(values: Tensor, place: Tensor) -> Tensor:
    """Rows sorted, or at least so that what stands at each `place` (N, 1) is what would stand there."""
    if values.device.type != "cpu":
        return values.sort(dim=1).values
    # numpy's vectorised sort is over ten times as fast as torch's, and finding a place or two quicker yet
    places = np.unique(place.numpy())
    if not places.any():  # the smallest; partitioning for it takes ten times as long as for others where many are zero
        return values.amin(1, keepdim=True)
    if len(places) <= _FEW_PLACES:
        return torch.from_numpy(np.partition(values.numpy(), places, axis=1))
    return torch.from_numpy(np.sort(values.numpy(), axis=1))


def random_start(clean: Tensor, eps: Tensor, norm: Norm, uniform: Tensor) -> Tensor:
    """A random perturbation inside the ball (the box is left to the projection).

    Args:
        clean: (N, C, H, W).
        uniform: (N, C, H, W) uniform numbers in [0, 1), keyed per example where verdicts depend on them.

    Returns:
        (N, C, H, W) perturbations: uniform in the box for L-inf; towards a uniform image for L2 (as advertorch, IR
        section 5) and, shrunk to the ball, for L1.
    """
    if norm == "linf":
        return (2.0 * uniform - 1.0) * per_example(eps, clean)
    towards = uniform - clean
    factor = (eps / distance(towards, norm).clamp_min(1e-12)).clamp_max_(1.0)
    return towards * per_example(factor, clean)
