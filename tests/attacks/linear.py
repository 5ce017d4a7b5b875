"""Classifiers whose robustness is known: linear in the pixels, or in their sum."""

from __future__ import annotations

import copy

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


def exact_radius(net: nn.Module, images: Tensor, labels: Tensor, norm: Norm) -> Tensor:
    """(N,) float64: the least radius at which a net that is linear in the pixels can be fooled inside [0, 1].

    Infinite where no image fools it; 0 where the image itself does. By bisection of what a ball gains at the most.
    """
    clean = images.double()
    weight, logits = slopes(net, images)
    low, high = torch.zeros(len(clean), dtype=torch.float64), torch.full((len(clean),), 2.0 * weight.shape[1]).double()
    radius = torch.full_like(low, torch.inf)
    for _ in range(60):
        middle = (low + high) / 2
        fooled = best_margin(weight, logits, clean, labels, eps=middle, norm=norm) > 0
        radius = torch.where(fooled, middle, radius)
        low, high = torch.where(fooled, low, middle), torch.where(fooled, middle, high)
    return torch.where(logits.argmax(1) == labels, radius, 0.0)


def slopes(net: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """What each pixel value adds to each logit of a linear net, (K, D), and its logits (N, K); float64."""
    exact = copy.deepcopy(net).double()
    shape = images.shape[1:]
    with torch.no_grad():
        rows = exact(torch.eye(shape.numel(), dtype=torch.float64).view(-1, *shape))
        return (rows - exact(torch.zeros(1, *shape, dtype=torch.float64))).T, exact(images.double())


def best_margin(weight: Tensor, logits: Tensor, clean: Tensor, labels: Tensor, eps: Tensor, norm: Norm) -> Tensor:
    """(N,) the largest margin of a wrong class inside ball and box, for logits of slopes `weight` (K, D)."""
    best = torch.full_like(eps, -torch.inf)
    for other in range(len(weight)):
        slope = weight[other] - weight[labels]
        room = torch.where(slope > 0, 1 - clean.flatten(1), clean.flatten(1))
        gained = (slope.abs() * _largest_move(slope.abs(), room, eps[:, None], norm)).sum(1)
        margin = logits[:, other] - logits.gather(1, labels[:, None]).squeeze(1) + gained
        best = torch.maximum(best, torch.where(labels == other, -torch.inf, margin))
    return best


def _largest_move(slope: Tensor, room: Tensor, eps: Tensor, norm: Norm) -> Tensor:
    """(N, D) how far each pixel moves for the greatest gain, at most by `room`; slopes are not negative."""
    if norm == "linf":
        return torch.minimum(room, eps.expand_as(room))
    if norm == "l1":
        order = slope.argsort(1, descending=True)
        spent = room.gather(1, order).cumsum(1)
        moved = torch.minimum(room.gather(1, order), (eps - (spent - room.gather(1, order))).clamp_min(0.0))
        return torch.zeros_like(room).scatter(1, order, moved)
    # min(factor * slope, room) has length eps; pixels come to the end of their room in the order of these factors
    full, order = (room / slope.clamp_min(1e-300)).sort(1)
    ended = room.gather(1, order).square().cumsum(1)
    moving = slope.gather(1, order).square().flip(1).cumsum(1).flip(1)
    later = torch.cat([moving[:, 1:], torch.zeros_like(eps)], 1)
    count = (ended + later * full.square() < eps.square()).sum(1, keepdim=True)
    used = torch.cat([torch.zeros_like(eps), ended], 1).gather(1, count)
    left = torch.cat([moving, torch.zeros_like(eps)], 1).gather(1, count)
    factor = ((eps.square() - used).clamp_min(0.0) / left.clamp_min(1e-300)).sqrt()
    return torch.minimum(factor * slope, room)


def fewest_values(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """(N,) float64: the fewest pixel values whose change inside [0, 1] fools a linear net; infinite where none does."""
    weight, logits = slopes(net, images)
    clean = images.double().flatten(1)
    fewest = torch.full((len(images),), torch.inf, dtype=torch.float64)
    for other in range(len(weight)):
        slope = weight[other] - weight[labels]
        gains = (slope.abs() * torch.where(slope > 0, 1 - clean, clean)).sort(1, descending=True).values.cumsum(1)
        missing = logits.gather(1, labels[:, None]) - logits[:, other : other + 1]
        needed = (gains <= missing).sum(1).double() + 1
        needed = torch.where((labels == other) | (needed > clean.shape[1]), torch.inf, needed)
        fewest = torch.minimum(fewest, needed)
    return torch.where(logits.argmax(1) == labels, fewest, 0.0)


class Thresholds(nn.Module):
    """Class 1 where all is a little brighter, or pixel 5 by 0.4; what moves a pixel by less than 0.3 changes nothing."""

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.flatten(1)
        one = 10 * (pixels[:, 5] - 0.3).clamp_min(0.0)
        return torch.stack([torch.ones_like(one), one + pixels.mean(1) / 0.2], 1)
