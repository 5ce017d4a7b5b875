"""Input gradients of the true class's logit, differentiable when training needs it, and SmoothGrad."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def input_gradient(
    model: nn.Module, images: Tensor, labels: Tensor, *, differentiable: bool = False
) -> tuple[Tensor, Tensor]:
    """The gradient of logit `labels[i]` with respect to image i, by one vector-Jacobian product.

    Args:
        images: (N, C, H, W) in [0, 1].
        labels: (N,).
        differentiable: keep the graph of the gradient, for double back-propagation.

    Returns:
        logits (N, K) with their graph, and gradients (N, C, H, W).

    Source: IR section 1, LGA section 1 (the logit, not the probability and not the loss).
    """
    inputs = images.detach().requires_grad_(True)
    logits = model(inputs)
    return logits, true_logit_gradient(logits, inputs, labels, differentiable=differentiable)


def true_logit_gradient(logits: Tensor, inputs: Tensor, labels: Tensor, *, differentiable: bool = False) -> Tensor:
    """d logits[i, labels[i]] / d inputs[i], (N, C, H, W); the graph of `logits` (N, K) is kept."""
    picked = logits.gather(1, labels[:, None]).sum()
    (gradient,) = torch.autograd.grad(picked, inputs, create_graph=differentiable, retain_graph=True)
    return gradient


def gradient_maps(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Signed input gradients, detached; (N, C, H, W)."""
    return input_gradient(model, images, labels)[1].detach()


def smoothgrad_maps(
    model: nn.Module, images: Tensor, labels: Tensor, *, samples: int, sigma: float, generator: torch.Generator
) -> Tensor:
    """The mean of the clean image's gradient and of `samples` noisy images' gradients (IR, section 2.1).

    Noise is Gaussian with standard deviation `sigma` in pixels of [0, 1]; noisy images are clipped to [0, 1].

    Returns:
        (N, C, H, W) signed maps, not normalised, detached.
    """
    total = gradient_maps(model, images, labels)
    for _ in range(samples):
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        total += gradient_maps(model, (images + sigma * noise).clamp_(0.0, 1.0), labels)
    return total / (samples + 1)
