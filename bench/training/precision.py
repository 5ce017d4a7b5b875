"""The net as the training steps see it: in mixed precision and compiled where the schedule asks for it."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

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
    """`model`, wrapped; it shares the parameters, and validation goes on using `model` itself in float32."""
    schedule = recipe.schedule
    net = model
    if schedule.precision == "bfloat16":
        net = MixedPrecision(net, device.type)
    if schedule.compile:
        net = cast(nn.Module, torch.compile(net))
    return net
