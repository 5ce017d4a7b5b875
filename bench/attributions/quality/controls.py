"""Maps to hold a method's figures against: random numbers, the image's edges, the image itself, a blurred map.

They have the contract of attribution methods, so that whatever judges a method judges them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from bench.attributions.heat_maps import heat_maps
from bench.attributions.pixel_scores import blurred, free_scores
from bench.attributions.registry import AttributionMethod
from bench.core.keyed_random import keyed_uniform
from bench.leaderboard.controls import CONTROL

BLUR_SIGMA = 1.5
"""Pixels, as in ROAR's control."""
BLURRED = f"{CONTROL}blurred"


def controls(first: AttributionMethod) -> list[AttributionMethod]:
    """The four controls; the blurred map is that of `first`."""

    def control(name: str, function: Callable[..., Tensor], *takes: str) -> AttributionMethod:
        return AttributionMethod(f"{CONTROL}{name}", function, frozenset(takes), {}, signed=False)

    def random(_: nn.Module, images: Tensor, __: Tensor, *, ids: Tensor, seed: int) -> Tensor:
        return keyed_uniform(seed, "control", ids, (1, *images.shape[2:])).to(images)

    def blurred_map(*given: Any, **offered: Any) -> Tensor:
        return blurred_maps(first.function(*given, **offered, **first.parameters).detach())

    return [
        control("random", random, "ids", "seed"),
        control("sobel", lambda _, images, __, ids: free_scores(images.detach(), ids, "sobel")[:, None], "ids"),
        control("image", lambda _, images, __: images.detach()),
        replace(first, name=BLURRED, function=blurred_map, parameters={}, signed=False),
    ]


def blurred_maps(attributions: Tensor) -> Tensor:
    """The control made of a method's signed maps; (N, C, H, W) -> (N, 1, H, W)."""
    return blurred(heat_maps(attributions), BLUR_SIGMA)[:, None]
