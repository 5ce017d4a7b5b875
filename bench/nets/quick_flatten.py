"""A flattening of images that keeps gradients channels last."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class QuickFlatten(nn.Flatten):
    """nn.Flatten whose gradient has the memory format of its images, for the layers before it to work on.

    Flattening makes a copy in the other format, and the gradient that comes back in it makes every operation before,
    which meets values that are channels last, take up to three times as long on a CPU.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, ...) -> (N, features)."""
        channels_last = (
            inputs.requires_grad
            and inputs.dim() == 4
            and not inputs.is_leaf  # which would keep a hook of every pass
            and not torch._C._are_functorch_transforms_active()  # vmap knows one format
            and inputs.is_contiguous(memory_format=torch.channels_last)
        )
        if channels_last:
            register: Any = inputs.register_hook  # without types in some releases of torch
            register(lambda gradient: gradient.contiguous(memory_format=torch.channels_last))
        return super().forward(inputs)
