"""The small nets: that of the embedded zoo, and a smaller one of which hundreds can be trained in a minute."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from bench.nets.registry import NetOptions, register_classifier


@register_classifier
def small_cnn(net: NetOptions, *, widths: Sequence[int] = (32, 64), hidden: int = 128) -> dict[str, nn.Module]:
    """conv4x4 stride 2, conv4x4 stride 2, linear, linear; 436,202 parameters for 1x28x28 and 10 classes.

    Strides take the place of max-pooling: input gradients have no argmax jumps, and a step costs about
    2 million multiply-adds an image, so that evaluations stay cheap on a CPU.
    """
    first, second = widths
    side = net.side(4)
    return {
        "conv1": nn.Conv2d(net.in_channels, first, 4, stride=2, padding=1),
        "act1": net.act(),
        "conv2": nn.Conv2d(first, second, 4, stride=2, padding=1),
        "act2": net.act(),
        "flatten": nn.Flatten(),
        "linear1": nn.Linear(second * side * side, hidden),
        "act3": net.act(),
        "linear2": nn.Linear(hidden, net.num_classes),
    }


@register_classifier
def patch_cnn(net: NetOptions, *, width: int = 16, hidden: int = 64) -> dict[str, nn.Module]:
    """conv8x8 stride 4 over half-overlapping patches, linear, linear; 51,930 parameters for 1x28x28 and 10 classes.

    For ROAR and KAR, not for a leaderboard. One convolution whose input needs no gradient, so that a training step is a
    handful of matrix products.
    """
    side = net.side(4)
    return {
        "conv1": nn.Conv2d(net.in_channels, width, 8, stride=4, padding=2),
        "act1": net.act(),
        "flatten": nn.Flatten(),
        "linear1": nn.Linear(width * side * side, hidden),
        "act2": net.act(),
        "linear2": nn.Linear(hidden, net.num_classes),
    }
