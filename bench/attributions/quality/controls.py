"""Maps to hold a method's figures against: random numbers, the image's edges, the image itself, a blurred map.

They have the contract of attribution methods, so that whatever judges a method judges them.
"""

from __future__ import annotations

from dataclasses import replace

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

    def blurred_map(model: nn.Module, images: Tensor, targets: Tensor, **offered: object) -> Tensor:
        maps = first.function(model, images, targets, **offered, **first.parameters).detach()
        return blurred_maps(maps)

    plain = AttributionMethod(f"{CONTROL}random", _random, frozenset({"ids", "seed"}), {}, signed=False)
    return [
        plain,
        replace(plain, name=f"{CONTROL}sobel", function=_sobel, takes=frozenset({"ids"})),
        replace(plain, name=f"{CONTROL}image", function=_image, takes=frozenset()),
        replace(first, name=BLURRED, function=blurred_map, parameters={}, signed=False),
    ]


def blurred_maps(attributions: Tensor) -> Tensor:
    """The control made of a method's signed maps; (N, C, H, W) -> (N, 1, H, W)."""
    return blurred(heat_maps(attributions), BLUR_SIGMA)[:, None]


def _random(model: nn.Module, images: Tensor, targets: Tensor, *, ids: Tensor, seed: int) -> Tensor:  # noqa: ARG001
    return keyed_uniform(seed, "control", ids, (1, *images.shape[2:])).to(images)


def _sobel(model: nn.Module, images: Tensor, targets: Tensor, *, ids: Tensor) -> Tensor:  # noqa: ARG001
    return free_scores(images.detach(), ids, "sobel")[:, None]


def _image(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG001
    return images.detach()
