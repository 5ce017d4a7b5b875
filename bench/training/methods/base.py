"""What every method is: declared parameters, and a loss made of named terms."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Batch:
    """One minibatch.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64.
        target_maps: (N, C, H, W) where the method needs them.
        pixel_std: (1, C, 1, 1), the standard deviation by which the net divides its pixels.
        generator: a CPU generator for the method's own noise.
    """

    images: Tensor
    labels: Tensor
    target_maps: Tensor | None
    pixel_std: Tensor
    generator: torch.Generator

    def uniform(self) -> Tensor:
        """Uniform numbers in [0, 1), shaped as the images, drawn on the CPU so that devices agree."""
        return torch.rand(self.images.shape, generator=self.generator).to(self.images.device)


class Method(BaseModel):
    """Base of all methods; unknown parameters are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def source(self) -> str | None:
        """The model whose maps this method needs as targets, if any."""
        return None

    def loss_terms(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Weighted scalar terms, the training loss being their sum; the first is a cross-entropy."""
        raise NotImplementedError
