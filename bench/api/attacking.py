"""Attacking images in memory: for a look, where a suite would be too much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.api.arguments import require_images
from bench.attacks.losses import LossName, answers
from bench.attacks.pgd import attacked_model, pgd
from bench.attacks.verification import pull_inside, verify
from bench.core.errors import BenchError
from bench.core.keyed_random import keyed_uniform
from bench.core.names import unknown_name
from bench.core.precision import float32_products
from bench.core.threat import NORMS, Norm
from bench.nets.logit_scale import at_usual_scale


@dataclass(frozen=True)
class AttackResult:
    """What an attack found, verified by the plain model.

    Attributes:
        images: (N, C, H, W) in [0, 1]; the adversarial example where `broken`, the clean image elsewhere.
        broken: (N,) bool; also where the clean image is misclassified.
        predictions: (N,) what the model says of `images`.
        distances: (N,) float64, how far `images` lie from the clean ones in the attack's norm.
    """

    images: Tensor
    broken: Tensor
    predictions: Tensor
    distances: Tensor

    @property
    def robust_accuracy(self) -> float:
        """The share of images that withstood."""
        return 1.0 - float(self.broken.float().mean())


def attack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: Norm,
    eps: float,
    steps: int = 40,
    losses: Sequence[LossName] = ("cross_entropy", "margin"),
    seed: int = 0,
    batch_size: int = 256,
) -> AttackResult:
    """Untargeted PGD at one radius, one keyed random start for each loss, worst case per image.

    For a look at images; the suites attack harder, see `evaluate`.

    Args:
        model: images in [0, 1] in, logits out; attacked in eval mode, its mode is put back.
        images: (N, C, H, W) float32 in [0, 1], on the model's device.
        labels: (N,) int64.
        eps: radius of the ball, in pixels of [0, 1].

    Raises:
        BenchError: unknown norm, a radius that is not positive, no image, or pixels outside [0, 1].
    """
    if norm not in NORMS:
        raise unknown_name(str(norm), NORMS, "norm")
    if not (eps > 0 and math.isfinite(eps)) or steps < 1 or batch_size < 1:
        raise BenchError(f"eps {eps}, {steps} steps, batches of {batch_size}: all must be positive.")
    require_images(images, labels)
    parts = []
    with attacked_model(model), float32_products():
        model = at_usual_scale(model, images[:batch_size], batch_size)
        for begin in range(0, len(images), batch_size):
            chosen = slice(begin, begin + batch_size)
            ids = torch.arange(begin, begin + len(images[chosen]), device=images.device)
            parts.append(_attack_batch(model, images[chosen], labels[chosen], ids, norm, eps, steps, losses, seed))
    return AttackResult(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _attack_batch(
    model: nn.Module, clean: Tensor, labels: Tensor, ids: Tensor, norm: Norm, eps: float, steps: int,
    losses: Sequence[LossName], seed: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    with torch.no_grad():
        predictions = answers(model(clean))
    found, broken = clean.clone(), predictions != labels
    distances = torch.zeros(len(clean), dtype=torch.float64, device=clean.device)
    for number, loss in enumerate(losses):
        standing = (~broken).nonzero().squeeze(1)
        if len(standing) == 0:
            break
        part, target = clean[standing], labels[standing]
        start = keyed_uniform(seed, f"api/{norm}/{number}", ids[standing], part.shape[1:])
        tried = pgd(
            model, part, target, norm=norm, eps=eps, steps=steps, step_size=2.5 * eps / steps, loss=loss, start=start
        )
        radius = tried.new_full((len(tried),), eps)
        verified, measured, said = verify(model, tried, part, target, radius, norm)
        won = standing[verified]
        found[won] = pull_inside(tried, part, radius, norm)[verified]
        predictions[won] = said[verified]
        distances[won] = measured[norm][verified]
        broken[won] = True
    return found, broken, predictions, distances
