"""A net so small that hundreds of them can be trained in a minute: for ROAR and KAR, not for a leaderboard."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from bench.nets.layers import Normalization, make_activation
from bench.nets.registry import register_net


@register_net
def patch_cnn(
    *,
    in_channels: int,
    image_size: int,
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    width: int = 16,
    hidden: int = 64,
    activation: str = "relu",
    softplus_beta: float = 3.0,
) -> nn.Module:
    """conv8x8 stride 4 over half-overlapping patches, linear, linear; 51,930 parameters for 1x28x28 and 10 classes.

    One convolution whose input needs no gradient, so that a training step is a handful of matrix products.
    """
    if image_size % 4:
        raise ValueError("image_size must be a multiple of 4")
    side = image_size // 4
    return nn.Sequential(
        OrderedDict(
            normalization=Normalization(mean, std),
            conv1=nn.Conv2d(in_channels, width, 8, stride=4, padding=2),
            act1=make_activation(activation, softplus_beta),
            flatten=nn.Flatten(),
            linear1=nn.Linear(width * side * side, hidden),
            act2=make_activation(activation, softplus_beta),
            linear2=nn.Linear(hidden, num_classes),
        )
    )
