"""A model as attacks that others wrote call it: empty batches, bounded memory, counted work."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class _ContiguousGradient(torch.autograd.Function):
    """The identity, with a contiguous gradient of numbers.

    The attacks use `view`, which channels_last gradients refuse, and a NaN would end up in their images.
    """

    @staticmethod
    def forward(context: Any, images: Tensor) -> Tensor:  # noqa: ARG004
        return images.view_as(images)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return gradient.contiguous().nan_to_num(0.0, 0.0, 0.0)


class PreparedModel(nn.Module):
    """The model as the components call it: empty batches, bounded memory, counted work.

    Attributes:
        batch_size: more images than this go through the net in parts, with gradients recomputed part by part, so
            that a component may hold all its images at once, independent of the device's memory.
        forwards: images that went through the net without a gradient being asked for.
        gradients: images that went through the net for a gradient.
    """

    def __init__(self, model: nn.Module, num_classes: int, batch_size: int) -> None:
        super().__init__()
        self.model, self.num_classes, self.batch_size = model, num_classes, batch_size
        self.forwards = self.gradients = 0

    def forward(self, images: Tensor) -> Tensor:
        if not len(images):
            return images.new_zeros(0, self.num_classes)
        if not (torch.is_grad_enabled() and images.requires_grad):
            self.forwards += len(images)
            return torch.cat([self.model(part) for part in torch.split(images, self.batch_size)])
        self.gradients += len(images)
        images = _ContiguousGradient.apply(images)
        if len(images) <= self.batch_size:
            logits: Tensor = self.model(images)
            return logits
        return torch.cat(
            [checkpoint(self.model, part, use_reentrant=False) for part in torch.split(images, self.batch_size)]
        )
