"""The gradient of the explained logit, and what is made of gradients: times the pixels, along a path, under noise."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from bench.attacks.losses import picked
from bench.attributions.operations import require_gradient
from bench.attributions.registry import register_attribution
from bench.core.bounds import Steps
from bench.core.keyed_random import keyed_normal
from bench.core.torch_state import twice_differentiable


@register_attribution("gradient", differentiable=True)
def gradient(model: nn.Module, images: Tensor, targets: Tensor, *, keep_graph: bool = False) -> Tensor:
    """The gradient of the class's logit (Simonyan et al. 2014)."""
    with torch.enable_grad(), twice_differentiable(keep_graph):
        logits: Tensor = model(images)
        require_gradient(logits)
        (found,) = torch.autograd.grad(picked(logits, targets).sum(), images, create_graph=keep_graph)
    return found


@register_attribution("input_x_gradient", differentiable=True)
def input_x_gradient(model: nn.Module, images: Tensor, targets: Tensor, *, keep_graph: bool = False) -> Tensor:
    """The gradient times the pixels in [0, 1], so that a black pixel has none (Shrikumar et al. 2016).

    Whatever the net's own normalisation: LGA's code multiplies by normalised pixels, whose zero is the mean colour.
    """
    return gradient(model, images, targets, keep_graph=keep_graph) * images


@register_attribution("integrated_gradients", differentiable=True)
def integrated_gradients(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    keep_graph: bool = False,
    steps: Annotated[int, Field(gt=0, le=1000)] = 32,
) -> Tensor:
    """Gradients averaged along the way from a black image, times the pixels (Sundararajan et al. 2017).

    Gauss-Legendre points, as captum's default, so that few of them meet the completeness axiom.
    """
    points, weights = np.polynomial.legendre.leggauss(steps)
    total, start = torch.zeros_like(images), images if keep_graph else images.detach()
    for point, weight in zip(points.tolist(), weights.tolist(), strict=True):
        moved = (0.5 + 0.5 * point) * start
        total = total + 0.5 * weight * gradient(model, moved.requires_grad_(True), targets, keep_graph=keep_graph)
    return total * images


@register_attribution("smoothgrad", differentiable=True)
def smoothgrad(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    ids: Tensor,
    seed: int,
    keep_graph: bool = False,
    samples: Steps = 16,
    sigma: Annotated[float, Field(gt=0, le=100, description="standard deviation of the noise, pixels in [0, 1]")] = 0.1,
) -> Tensor:
    """The mean gradient of noisy copies (Smilkov et al. 2017), not clipped; the noise is keyed by example id.

    An image and its perturbed copy get the same noise, so that their maps differ by the perturbation alone.
    """
    total, start = torch.zeros_like(images), images if keep_graph else images.detach()
    for sample in range(samples):
        noise = keyed_normal(seed, "smoothgrad", ids, images.shape[1:], extra=torch.full_like(ids, sample))
        moved = start + sigma * noise.to(images)
        total = total + gradient(model, moved.requires_grad_(True), targets, keep_graph=keep_graph)
    return total / samples
