"""Asking a net for its answers to fixed images: a few of its data set and a few of noise."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from bench.core.devices import exact
from bench.core.errors import goes_on
from bench.core.keyed_random import keyed_uniform
from bench.core.precision import float32_products
from bench.core.torch_state import random_numbers_of
from bench.data import ImageDataset
from bench.leaderboard.evidence.answers import FixedAnswers

_EACH = 3
_MOST_CLASSES = 10


def fixed_answers(model: nn.Module, dataset: ImageDataset, device: torch.device) -> FixedAnswers:
    """The logits of some classes, their largest and their mean, by image.

    Args:
        model: on `device`, in eval mode.
    """
    own = dataset.pixels(slice(0, _EACH))
    noise = keyed_uniform(0, "fixed answers", torch.arange(_EACH), dataset.shape[1:])
    batches = [own.to(device), noise.to(device)]
    with random_numbers_of(device, "fixed answers"):
        first, second = (torch.cat([_ask(model, batch, dataset.num_classes) for batch in batches]) for _ in range(2))
    differences = (first - second).abs()
    deviation = max(filter(math.isfinite, differences.flatten().tolist()), default=0.0)
    return FixedAnswers([[_number(value) for value in row] for row in first.tolist()], float(f"{deviation:.7g}"))


def _ask(model: nn.Module, images: Tensor, classes: int) -> Tensor:
    """(n, at most 12) float64; NaN where the net gives no logits, which the run itself will tell in better words."""
    logits: Any = None
    try:
        with torch.no_grad(), float32_products():
            logits = exact(model(images.clone())).cpu()
    except BaseException as error:  # of any kind: the net may be the user's own
        if goes_on(error):
            raise
    if logits is None or logits.shape != (len(images), classes):
        logits = torch.full((len(images), classes), torch.nan, dtype=torch.float64)
    step = -(-classes // _MOST_CLASSES)
    return torch.cat([logits[:, ::step], logits.amax(1, keepdim=True), logits.mean(1, keepdim=True)], dim=1)


def _number(value: float) -> float | None:
    return float(f"{value:.7g}") if math.isfinite(value) else None
