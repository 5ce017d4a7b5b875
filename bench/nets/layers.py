"""Small layers that several architectures share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

_Layer = TypeVar("_Layer", bound=nn.Conv2d | nn.ConvTranspose2d | nn.Linear)


def glorot(layer: _Layer) -> _Layer:
    """The layer with Glorot-uniform weights and a bias of zeros, as TensorFlow initialises."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Normalization(nn.Module):
    """Per-channel (x - mean) / std, as the first layer, so that attacks always work in pixels of [0, 1].

    Mean and std are buffers: they travel with the weights and are covered by their digest.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))
        self.require_numbers()

    def require_numbers(self) -> None:
        """Raise ValueError unless the means are numbers and the deviations numbers above zero."""
        if not (torch.isfinite(self.mean).all() and torch.isfinite(self.std).all() and (self.std > 0).all()):
            raise ValueError("mean must hold numbers, and std numbers above 0")

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std
