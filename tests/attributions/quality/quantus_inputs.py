"""Images, maps, a net and perturbations that Quantus and our metrics are both given."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

SIZE, COUNT, CLASSES, DRAWS = 8, 6, 3, 4
SHARES = (0.1, 0.3, 0.6)


def _uniform(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random(shape)).float()


def images() -> Tensor:
    return _uniform(0, COUNT, 1, SIZE, SIZE)


def labels() -> Tensor:
    return torch.arange(COUNT) % CLASSES


def maps() -> Tensor:
    """Signed, of very different sparseness."""
    values = _uniform(1, COUNT, 1, SIZE, SIZE)
    return values ** torch.arange(1, COUNT + 1).view(-1, 1, 1, 1) * torch.sign(_uniform(2, COUNT, 1, SIZE, SIZE) - 0.3)


def net() -> nn.Module:
    """Not linear, smooth, with weights from numpy."""
    made = nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, 12), nn.Tanh(), nn.Linear(12, CLASSES))
    for number, weight in enumerate(made.parameters()):
        weight.data = _uniform(10 + number, *weight.shape) - 0.5
    first: nn.Linear = made[1]
    first.bias.data = -0.5 * first.weight.data.sum(1)  # so that answers differ
    return made.eval().requires_grad_(False)


def perturbed() -> list[Tensor]:
    """Copies of the images."""
    return [(images() + 0.4 * (_uniform(20 + draw, COUNT, 1, SIZE, SIZE) - 0.5)).clamp(0, 1) for draw in range(DRAWS)]


def inside() -> Tensor:
    """(N, H, W) bool: the upper half, in which some maps have their largest value."""
    return (torch.arange(SIZE) < SIZE // 2)[None, :, None].expand(COUNT, SIZE, SIZE)
