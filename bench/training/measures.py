"""What is measured of a net on held-out examples: accuracy and a short PGD while it trains, gradients for its card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.attacks.pgd import attacked_model, pgd
from bench.attributions.gradients import gradient_maps
from bench.core.keyed_random import keyed_uniform
from bench.core.threat import ThreatModel

STABILITY_RADII = (4, 8, 16)
"""Radii of the uniform noise, in 255ths of the pixel range (LGA, section 4.3)."""
_BATCH_SIZE = 250
QUICK_THREATS: dict[str, tuple[ThreatModel, ...]] = {
    "fashion_mnist": (ThreatModel("linf", 0.1), ThreatModel("l2", 1.5)),
    "mnist": (ThreatModel("linf", 0.3), ThreatModel("l2", 1.5)),
    "cifar10": (ThreatModel("linf", 8 / 255), ThreatModel("l2", 0.5)),
}


def accuracy(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 512) -> float:
    """The share of images classified right, in eval mode; the model's modes are put back."""
    correct = torch.zeros((), dtype=torch.int64, device=images.device)
    with attacked_model(model), torch.no_grad():
        for batch, truth in zip(torch.split(images, batch_size), torch.split(labels, batch_size), strict=True):
            correct += (model(batch).argmax(1) == truth).sum()
    return int(correct) / len(images)


def quick_robust_accuracy(model: nn.Module, images: Tensor, labels: Tensor, threat: ThreatModel) -> float:
    """Accuracy under a 10-step PGD without restarts: a trend to watch, not a verdict."""
    size = 2.5 * threat.eps / 10
    adversarial = pgd(model, images, labels, norm=threat.norm, eps=threat.eps, steps=10, step_size=size)
    return accuracy(model, adversarial, labels)


def noisy_gradients(
    model: nn.Module, images: Tensor, labels: Tensor, example_ids: Tensor, radii: Sequence[float]
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """By batches, the true class's logit's gradients (n, D) at the images and at uniformly perturbed copies.

    One copy an image and radius, in 255ths; its noise is keyed by example id; pixels are not clipped.
    """
    with attacked_model(model):
        for batch in torch.split(torch.arange(len(images)), _BATCH_SIZE):
            noise = 2.0 * keyed_uniform(0, "stability", example_ids[batch], images.shape[1:]).to(images.device) - 1.0
            copies = [images[batch], *(images[batch] + radius / 255 * noise for radius in radii)]
            clean, *noisy = (gradient_maps(model, copy, labels[batch]).flatten(1) for copy in copies)
            yield clean, noisy


def gradient_stability(model: nn.Module, images: Tensor, labels: Tensor, example_ids: Tensor) -> dict[str, float]:
    """Mean cosine between the input gradient of an image and of a uniformly perturbed copy, by radius in 255ths.

    See `noisy_gradients`. 1 means that small noise does not change the map at all.

    Args:
        images: (N, C, H, W) in [0, 1].
        example_ids: (N,).
    """
    totals = dict.fromkeys(STABILITY_RADII, 0.0)
    for clean, copies in noisy_gradients(model, images, labels, example_ids, radii=STABILITY_RADII):
        for radius, noisy in zip(STABILITY_RADII, copies, strict=True):
            totals[radius] += float(F.cosine_similarity(clean, noisy).sum())
    return {f"{radius}/255": round(total / len(images), 4) for radius, total in totals.items()}


def gradient_alignment(model: nn.Module, images: Tensor, labels: Tensor, target_maps: Tensor) -> float:
    """Mean cosine between the input gradients and target maps of the same images; (N, C, H, W) each."""
    total = 0.0
    with attacked_model(model):
        for batch in torch.split(torch.arange(len(images)), _BATCH_SIZE):
            maps = gradient_maps(model, images[batch], labels[batch])
            total += float(F.cosine_similarity(maps.flatten(1), target_maps[batch].to(maps).flatten(1)).sum())
    return round(total / len(images), 4)


def gradient_norm(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Root mean square of the L2 norms of the true class's logit's gradients, pixels in [0, 1]; what IR makes small."""
    with attacked_model(model):
        parts = (slice(begin, begin + _BATCH_SIZE) for begin in range(0, len(images), _BATCH_SIZE))
        maps = [gradient_maps(model, images[part], labels[part]) for part in parts]
    return round(float(torch.cat(maps).flatten(1).square().sum(1).mean().sqrt()), 4)
