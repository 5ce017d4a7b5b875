"""Logits of a size at which float32 tells them apart: what attacks or explains a net must not depend on their unit."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bench.core.devices import exact

LOW, HIGH = 0.25, 128.0
"""The usual spread of a net's logits, the largest less the third; nets inside it are left as they are."""
_AIM = 4.0


class ScaledLogits(nn.Module):
    """A net whose logits are multiplied by `factor`, a power of two, and float32, whatever the net's own are.

    That rounds nothing, but for logits in float64, and changes no prediction.
    """

    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K)."""
        logits: Tensor = self.net(images)
        return (logits.to(torch.promote_types(logits.dtype, torch.float32)) * self.factor).float()


def unscaled(net: nn.Module) -> nn.Module:
    """The net with its logits as large as they are by themselves, whatever `at_usual_scale` has made of it."""
    return ScaledLogits(net.net, 1.0).train(net.training) if isinstance(net, ScaledLogits) else net


def factor_of(net: nn.Module) -> float:
    """What `at_usual_scale` has multiplied the net's logits by; 1 where it has not."""
    return net.factor if isinstance(net, ScaledLogits) else 1.0


def at_usual_scale(net: nn.Module, images: Tensor, batch_size: int) -> nn.Module:
    """The net itself, or with its logits scaled where the median spread over `images` is far from what nets have.

    Logits of another type than float32 are turned into it, since what attacks or explains a net reckons in it.
    Logits of 1e-9 make losses and gradients vanish in float32 and logits of 1e9 saturate them, so that attacks fail
    and the net looks robust, although its predictions are those of the same net at any other scale.

    Args:
        images: (N, C, H, W), the same ones whenever results are to be the same.
    """
    with torch.no_grad():
        logits = torch.cat([net(part) for part in torch.split(images, batch_size)])
    # not the smallest logit: nets that rule classes out give them -1e4 or less
    top = exact(logits).topk(min(3, logits.shape[1]), dim=1).values
    spread = float((top[:, 0] - top[:, -1]).median())
    usual = not math.isfinite(spread) or spread == 0.0 or LOW <= spread <= HIGH
    if usual and logits.dtype == torch.float32:
        return net
    return ScaledLogits(net, 1.0 if usual else 2.0 ** round(math.log2(_AIM / spread))).train(net.training)
