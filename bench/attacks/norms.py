"""Distances per example, and the helpers that broadcast one number per example over its pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.core.threat import NORMS, Norm


def per_example(values: Tensor, like: Tensor) -> Tensor:
    """Reshape (N,) to (N, 1, ..., 1) so that it broadcasts over `like` (N, ...)."""
    return values.view(-1, *([1] * (like.dim() - 1)))


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
    """The distances in all norms, in float64 from the float32 images; (N,) each."""
    delta = adversarial.double() - clean.double()
    return {norm: distance(delta, norm) for norm in NORMS}
