"""Projections onto {x': ||x' - x||_norm <= eps, x' in [0, 1]}, batched, with one radius per example."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.attacks.norms import distance, per_example
from bench.core.threat import Norm

_L1_ITERATIONS = 12
_L1_TOLERANCE = 1e-6


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
    how far the pixel can move in that direction. t is the root of a decreasing piecewise-linear function; it is found
    by Newton steps inside a shrinking bracket, and the feasible end of the bracket is taken.
    Source of the problem: Croce and Hein, "Mind the box: l1-APGD", ICML 2021, section 3.
    """
    magnitude = delta.abs().flatten(1)
    flat_clean = clean.flatten(1)
    room = torch.where(delta.flatten(1) > 0, 1.0 - flat_clean, flat_clean)
    threshold = _l1_threshold(magnitude, room, eps)
    kept = torch.minimum((magnitude - threshold[:, None]).clamp_min_(0.0), room)
    return torch.copysign(kept.view_as(delta), delta)


def _l1_threshold(magnitude: Tensor, room: Tensor, eps: Tensor) -> Tensor:
    low = torch.zeros_like(eps)
    high = magnitude.amax(1)
    threshold = low
    outside = None
    for _ in range(_L1_ITERATIONS):
        shrunk = magnitude - threshold[:, None]
        kept = torch.minimum(shrunk.clamp_min(0.0), room)
        excess = kept.sum(1) - eps
        if outside is None:
            outside = excess > 0
        sloping = ((shrunk > 0) & (shrunk < room)).sum(1).clamp_min_(1)
        too_big = excess > 0
        low = torch.where(too_big, threshold, low)
        high = torch.where(too_big, high, threshold)
        # aim a hair inside the ball, so that the bracket's feasible end closes in as well
        newton = threshold + (excess + _L1_TOLERANCE * eps) / sloping
        threshold = torch.where((newton > low) & (newton < high), newton, 0.5 * (low + high))
    return torch.where(outside, high, torch.zeros_like(high)) if outside is not None else high
