"""The convolution that sees the image: the same values as nn.Conv2d, an input gradient several times as fast."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class InputConv2d(nn.Conv2d):
    """A convolution whose gradient to a one-channel image is one matrix product and one fold.

    On a CPU the general routine takes four times as long for it as for the convolution, a quarter of a whole attack
    step of the small net. Used where nothing but the image asks for a gradient; everywhere else this is nn.Conv2d.
    """

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, channels, H', W')."""
        if not self._only_the_image_asks(images):
            return super().forward(images)
        values: Tensor = _GreyConvolution.apply(
            images, self.weight, self.bias, self.stride, self.padding, self.dilation
        )
        return values

    def _only_the_image_asks(self, images: Tensor) -> bool:
        return (
            self.in_channels == 1
            and images.device.type == "cpu"
            and images.requires_grad
            and torch.is_grad_enabled()
            and not any(parameter.requires_grad for parameter in self.parameters())
            and self.padding_mode == "zeros"
            and not isinstance(self.padding, str)
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            # LRP and its like have to see the convolution itself, in the pass forward and in that backward
            and not torch._C._is_torch_function_mode_enabled()
        )


class _GreyConvolution(torch.autograd.Function):
    """F.conv2d of one channel; differentiable to the images alone, as often as wanted."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        images: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any
    ) -> Tensor:
        return F.conv2d(images, weight, bias, stride, padding, dilation)

    @staticmethod
    def setup_context(context: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        images, weight, _, context.stride, context.padding, context.dilation = inputs
        context.size = images.shape[2:]
        context.save_for_backward(weight)
        context.save_for_forward(weight)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = context.saved_tensors
        count, channels, height, width = gradient.shape
        patches = gradient.permute(0, 2, 3, 1).reshape(-1, channels) @ weight.flatten(1)
        columns = patches.view(count, height * width, -1).transpose(1, 2)
        size, kernel = context.size, weight.shape[2:]
        images = F.fold(columns, size, kernel, context.dilation, context.padding, context.stride)
        return images, None, None, None, None, None

    @staticmethod
    def jvp(context: Any, tangent: Tensor, *others: Any) -> Tensor:  # noqa: ARG004
        (weight,) = context.saved_tensors
        return F.conv2d(tangent, weight, None, context.stride, context.padding, context.dilation)
