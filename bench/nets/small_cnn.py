"""The small net of the embedded zoo: two strided convolutions and two linear layers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from bench.nets.layers import Normalization, make_activation
from bench.nets.registry import register_net


@register_net
def small_cnn(
    *,
    in_channels: int,
    image_size: int,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    widths: Sequence[int] = (32, 64),
    hidden: int = 128,
    activation: str = "relu",
    softplus_beta: float = 3.0,
) -> nn.Module:
    """conv4x4 stride 2, conv4x4 stride 2, linear, linear; 436,202 parameters for 1x28x28 and 10 classes.

    Strides take the place of max-pooling: input gradients have no argmax jumps, and a step costs about
    2 million multiply-adds an image, so that evaluations stay cheap on a CPU.
    """
    first, second = widths
    side = image_size // 4
    if image_size % 4:
        raise ValueError("image_size must be a multiple of 4")
    return nn.Sequential(
        OrderedDict(
            normalization=Normalization(mean, std),
            conv1=nn.Conv2d(in_channels, first, 4, stride=2, padding=1),
            act1=make_activation(activation, softplus_beta),
            conv2=nn.Conv2d(first, second, 4, stride=2, padding=1),
            act2=make_activation(activation, softplus_beta),
            flatten=nn.Flatten(),
            linear1=nn.Linear(second * side * side, hidden),
            act3=make_activation(activation, softplus_beta),
            linear2=nn.Linear(hidden, num_classes),
        )
    )
