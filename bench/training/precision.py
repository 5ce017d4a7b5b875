"""The net as the training steps see it: in mixed precision and compiled where the schedule asks for it."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from bench.core.errors import BenchError
from bench.training.recipe import Recipe


class MixedPrecision(nn.Module):
    """Runs a net under bfloat16 autocast; parameters, logits and losses stay float32."""

    def __init__(self, net: nn.Module, device_type: str) -> None:
        super().__init__()
        self.net, self.device_type = net, device_type

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(self.device_type, torch.bfloat16):
            logits: Tensor = self.net(images)
        return logits.float()


def prepare_for_steps(recipe: Recipe, model: nn.Module, device: torch.device) -> nn.Module:
    """`model`, wrapped; it shares the parameters, and validation goes on using `model` itself in float32.

    Raises:
        BenchError: the method differentiates twice. Compiled graphs cannot be differentiated twice, and bfloat16's
            eight bits are too few for the difference of two gradients.
    """
    schedule = recipe.schedule
    asked = [name for name, on in (("precision", schedule.precision != "float32"), ("compile", schedule.compile)) if on]
    if asked and recipe.method.second_derivatives:
        raise BenchError(
            f"recipe {recipe.name} differentiates twice, which {' and '.join(asked)} cannot do; leave that out, it is "
            "for recipes without input derivatives in their loss (standard, at_linf, at_l2, trades)."
        )
    net = model
    if schedule.precision == "bfloat16":
        net = MixedPrecision(net, device.type)
    if schedule.compile:
        net = cast(nn.Module, torch.compile(net))
    return net
