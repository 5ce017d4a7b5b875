"""What training did to a model's gradients, measured on held-out examples for its card."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.attacks.pgd import attacked_model
from bench.attributions.gradients import gradient_maps
from bench.core.keyed_random import keyed_uniform

STABILITY_RADII = (4, 8, 16)
"""Radii of the uniform noise, in 255ths of the pixel range (LGA, section 4.3)."""
_BATCH_SIZE = 250


def gradient_stability(model: nn.Module, images: Tensor, labels: Tensor, example_ids: Tensor) -> dict[str, float]:
    """Mean cosine between the input gradient of an image and of a uniformly perturbed copy, by radius in 255ths.

    The gradient is that of the true class's logit; one copy an image, its noise keyed by example id; pixels are not
    clipped. 1 means that small noise does not change the map at all.

    Args:
        images: (N, C, H, W) in [0, 1].
        example_ids: (N,).
    """
    totals = dict.fromkeys(STABILITY_RADII, 0.0)
    with attacked_model(model):
        for begin in range(0, len(images), _BATCH_SIZE):
            batch = slice(begin, begin + _BATCH_SIZE)
            clean = gradient_maps(model, images[batch], labels[batch])
            noise = 2.0 * keyed_uniform(0, "stability", example_ids[batch], images.shape[1:]).to(images.device) - 1.0
            for radius in STABILITY_RADII:
                noisy = gradient_maps(model, images[batch] + radius / 255 * noise, labels[batch])
                totals[radius] += float(F.cosine_similarity(clean.flatten(1), noisy.flatten(1)).sum())
    return {f"{radius}/255": round(total / len(images), 4) for radius, total in totals.items()}


def gradient_alignment(model: nn.Module, images: Tensor, labels: Tensor, target_maps: Tensor) -> float:
    """Mean cosine between the input gradients and target maps of the same images; (N, C, H, W) each."""
    total = 0.0
    with attacked_model(model), torch.no_grad():
        for begin in range(0, len(images), _BATCH_SIZE):
            batch = slice(begin, begin + _BATCH_SIZE)
            with torch.enable_grad():
                maps = gradient_maps(model, images[batch], labels[batch])
            total += float(F.cosine_similarity(maps.flatten(1), target_maps[batch].to(maps).flatten(1)).sum())
    return round(total / len(images), 4)
