"""Classifiers whose robustness is known: linear in the pixels, or in their sum."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.core.threat import Norm


class LinearClassifier(nn.Module):
    """logits (w.x + b, -(w.x + b)) / 2; the distance to the boundary is |w.x + b| over the dual norm of w."""

    def __init__(self, weight: Tensor, bias: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = bias

    def forward(self, images: Tensor) -> Tensor:
        score = images.flatten(1) @ self.weight + self.bias
        return torch.stack([score, -score], dim=1) / 2

    def exact_distance(self, images: Tensor, norm: Norm) -> Tensor:
        """(N,) float64; exact as long as the nearest point lies inside [0, 1]."""
        weight = self.weight.double()
        score = (images.flatten(1).double() @ weight + self.bias).abs()
        dual = {"linf": weight.abs().sum(), "l2": weight.norm(), "l1": weight.abs().max()}[norm]
        return score / dual


class Decoy(nn.Module):
    """Class 1 is nearest but can never win; class 2 can."""

    def forward(self, images: Tensor) -> Tensor:
        score = images.flatten(1).mean(1)
        # the decoy rises as the image darkens but saturates just below the true class; class 2 needs bright images
        decoy = -0.01 - 0.5 * torch.relu(score - 0.3)
        return torch.stack([torch.zeros_like(score), decoy, 4.0 * (score - 0.65)], 1)


class Summing(nn.Module):
    """Right about dark images; its gradient is one number in many places of memory, which must not be written to."""

    def forward(self, images: Tensor) -> Tensor:
        score = images.flatten(1).sum(1) - 4.0
        return torch.stack([-score, score, torch.full_like(score, -9.0)], 1)


def linear_problem(count: int = 200, pixels: int = 36) -> tuple[LinearClassifier, Tensor, Tensor]:
    """Images around mid-grey, so that the box never binds, and the classifier's own labels."""
    generator = torch.Generator().manual_seed(0)
    model = LinearClassifier(torch.randn(pixels, generator=generator), 0.0)
    images = 0.5 + 0.02 * torch.randn(count, 1, 6, pixels // 6, generator=generator)
    model.bias = -float(0.5 * model.weight.sum())
    return model, images, model(images).argmax(1)
