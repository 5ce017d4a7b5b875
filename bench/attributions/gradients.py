"""Input gradients of the true class's logit, differentiable when training needs it, and SmoothGrad."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def true_logit_gradient(logits: Tensor, inputs: Tensor, labels: Tensor, *, differentiable: bool = False) -> Tensor:
    """d logits[i, labels[i]] / d inputs[i], (N, C, H, W); the graph of `logits` (N, K) is kept.

    Source: IR section 1, LGA section 1 (the logit, not the probability and not the loss).
    """
    picked = logits.gather(1, labels[:, None]).sum()
    (gradient,) = torch.autograd.grad(picked, inputs, create_graph=differentiable, retain_graph=True)
    return gradient


def gradient_maps(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Signed input gradients of images in [0, 1] and labels (N,), detached; (N, C, H, W)."""
    inputs = images.detach().requires_grad_(True)
    return true_logit_gradient(model(inputs), inputs, labels).detach()


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
