"""Projections onto {x': ||x' - x||_norm <= eps, x' in [0, 1]}, batched, with one radius per example."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.attacks.norms import distance, per_example
from bench.core.threat import Norm

_L1_ITERATIONS = 24


def project(images: Tensor, clean: Tensor, eps: Tensor, norm: Norm) -> Tensor:
    """The point of the ball around `clean` and of the pixel box that stands for `images`.

    L-inf and L1: the Euclidean projection. L2: clip to the box, then shrink towards `clean`, which stays inside the
    box; a point inside both is left where it is.

    Args:
        images: (N, C, H, W) candidates, unbounded.
        clean: (N, C, H, W) in [0, 1].
        eps: (N,) radii.
    """
    if norm == "linf":
        radius = per_example(eps, clean)
        return torch.minimum(torch.maximum(images, clean - radius), clean + radius).clamp_(0.0, 1.0)
    if norm == "l2":
        delta = images.clamp(0.0, 1.0).sub_(clean)
        factor = (eps / distance(delta, "l2").clamp_min_(1e-12)).clamp_max_(1.0)
        return delta.mul_(per_example(factor, delta)).add_(clean).clamp_(0.0, 1.0)
    return clean + project_l1_box(images - clean, clean, eps)


def project_l1_box(delta: Tensor, clean: Tensor, eps: Tensor) -> Tensor:
    """Euclidean projection of `delta` onto {||d||_1 <= eps, clean + d in [0, 1]}.

    The solution is sign(delta) * min(max(|delta| - t, 0), room) for one threshold t >= 0 per example, where `room` is
    how far the pixel can move in that direction. t is the root of sum(|d|) - eps, a decreasing piecewise-linear
    function, 0 where that is negative at 0; it is found by bisection, whose feasible end is taken.
    Source of the problem: Croce and Hein, "Mind the box: l1-APGD", ICML 2021, section 3.
    """
    magnitude = delta.abs().flatten(1)
    room = room_to_move(delta, clean).flatten(1)
    shrunk = torch.empty_like(magnitude)
    low, high = torch.zeros_like(eps), magnitude.amax(1)
    inside = torch.minimum(magnitude, room).sum(1) <= eps
    for _ in range(_L1_ITERATIONS):
        middle = 0.5 * (low + high)
        torch.sub(magnitude, middle[:, None], out=shrunk)
        too_big = torch.minimum(shrunk.clamp_min_(0.0), room, out=shrunk).sum(1) > eps
        low, high = torch.where(too_big, middle, low), torch.where(too_big, high, middle)
    threshold = torch.where(inside, 0.0, high)
    kept = torch.minimum(magnitude.sub_(threshold[:, None]).clamp_min_(0.0), room)
    return torch.copysign(kept.view_as(delta), delta)


def room_to_move(direction: Tensor, images: Tensor) -> Tensor:
    """How far each pixel can move along the sign of `direction` before it leaves [0, 1].

    Written without comparisons: element-wise work on booleans is some ten times slower on a CPU.
    """
    return direction.sign().mul_(0.5 - images).add_(0.5)
