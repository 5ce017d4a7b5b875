"""The net as the training steps see it: in mixed precision and compiled where the schedule asks for it."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from bench.core.precision import MixedPrecision
from bench.training.recipe import Recipe


def prepare_for_steps(recipe: Recipe, model: nn.Module, device: torch.device) -> nn.Module:
    """`model`, wrapped; it shares the parameters, and validation goes on using `model` itself in float32."""
    schedule = recipe.schedule
    net = model
    if schedule.precision == "bfloat16":
        net = MixedPrecision(net, device.type)
    if schedule.compile:
        net = cast(nn.Module, torch.compile(net))
    return net
