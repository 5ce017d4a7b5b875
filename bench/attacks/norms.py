"""Distances per example, and the helpers that broadcast one number per example over its pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.core.devices import exact
from bench.core.threat import NORMS, Norm


def per_example(values: Tensor, like: Tensor) -> Tensor:
    """Reshape (N,) to (N, 1, ..., 1) so that it broadcasts over `like` (N, ...)."""
    return values.view(-1, *([1] * (like.dim() - 1)))


def at_unit_size(values: Tensor) -> Tensor:
    """Values over a power of two, per example, so that the largest lies between 0.5 and 1; zeros stay.

    Nothing is rounded, and what is computed next neither underflows nor meets a constant that is large beside it.
    """
    largest = values.flatten(1).abs().amax(1)
    scale = torch.where(largest > 0, torch.frexp(largest).mantissa / largest, 1.0).clamp_max_(2.0**120)
    return values * per_example(scale, values)


def distance(delta: Tensor, norm: Norm) -> Tensor:
    """||delta_i||_norm for each example; (N, ...) -> (N,), in the dtype of `delta`."""
    flat = delta.flatten(1)
    if norm == "linf":
        return flat.abs().amax(1)
    if norm == "l2":
        length: Tensor = torch.linalg.vector_norm(flat, dim=1)
        return length
    return flat.abs().sum(1)


def exact_distances(adversarial: Tensor, clean: Tensor) -> dict[Norm, Tensor]:
    """The distances in all norms, in float64 from the float32 images; (N,) each, where `exact` leaves them."""
    delta = exact(adversarial) - exact(clean)
    return {norm: distance(delta, norm) for norm in NORMS}
