"""APGD: projected gradient ascent whose step halves by itself, on the cross-entropy or the (targeted) DLR loss.

Source: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks", ICML 2020; L1: Croce and Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers",
ICML 2021. Steps, momentum, checkpoints and losses are those of the papers as AutoAttack has them. What is ours: an
example leaves as soon as it is broken, targets and restarts share a batch, the last point's gradient is not taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.attacks.apgd.ascent import ApgdLoss, Ascent, Pairs, scaled
from bench.attacks.norms import per_example
from bench.attacks.projections import project_l1_box
from bench.attacks.registry import AttackResult, register_attack
from bench.attacks.target_pairs import nearest_classes, pair_batches
from bench.core.bounds import Steps
from bench.core.keyed_random import keyed_normal, keyed_uniform
from bench.core.threat import Norm

RESTARTS: dict[Norm, int] = {"linf": 1, "l2": 1, "l1": 5}
TARGETS: dict[Norm, int] = {"linf": 9, "l2": 9, "l1": 5}
"""How many random starts or target classes AutoAttack's standard version has."""
L1_WIDTHS = (3.0, 2.0, 1.0)
"""L1: the ball's width over the radius in the three stages."""
_L1_EARLY = 0.3
"""L1: the share of the steps that each of the first two stages has."""


def _untargeted(name: str, loss: ApgdLoss) -> Callable[..., AttackResult]:
    @register_attack(name, needs_gradients=True)
    def attack(
        model: nn.Module, images: Tensor, labels: Tensor, *, norm: Norm, eps: Tensor, ids: Tensor, seed: int = 0,
        batch_size: int = 256, iterations: Steps = 100, restarts: Steps | None = None,
    ) -> AttackResult:  # fmt: skip
        """APGD on the cross-entropy (`apgd-ce`) or the DLR loss (`apgd-dlr`); None: as many restarts as AutoAttack."""
        return AttackResult(apgd(
            model, images, labels, ids, norm=norm, eps=eps, loss=loss, iterations=iterations,
            restarts=restarts or RESTARTS[norm], seed=seed, batch_size=batch_size,
        ))  # fmt: skip

    return attack


apgd_ce, apgd_dlr = _untargeted("apgd-ce", "ce"), _untargeted("apgd-dlr", "dlr")


@register_attack("apgd-t", needs_gradients=True)
def apgd_targeted(
    model: nn.Module, images: Tensor, labels: Tensor, *, norm: Norm, eps: Tensor, ids: Tensor, seed: int = 0,
    batch_size: int = 256, iterations: Steps = 100, targets: Steps | None = None,
) -> AttackResult:  # fmt: skip
    """APGD on the targeted DLR loss, towards the nearest classes; None: as many as AutoAttack has."""
    return AttackResult(apgd(
        model, images, labels, ids, norm=norm, eps=eps, loss="dlr-targeted", iterations=iterations,
        restarts=targets or TARGETS[norm], seed=seed, batch_size=batch_size,
    ))  # fmt: skip


def apgd(
    model: nn.Module, images: Tensor, labels: Tensor, ids: Tensor, norm: Norm, eps: Tensor, loss: ApgdLoss,
    iterations: int, restarts: int, seed: int = 0, batch_size: int = 256,
) -> Tensor:  # fmt: skip
    """Look for misclassified images within `eps` (N,).

    Args:
        restarts: target classes, the nearest first, or else random starts.
        batch_size: the most pairs of example and restart that are attacked at once.

    Returns:
        (N, C, H, W) the first misclassified image found, or the image itself.
    """
    found, broken = images.clone(), torch.zeros_like(labels, dtype=torch.bool)
    targets = None
    if loss == "dlr-targeted":
        targets = nearest_classes(model, images, labels, restarts, batch_size=batch_size)
    restarts = restarts if targets is None else targets.shape[1]
    for examples, restart in pair_batches(len(images), restarts, batch_size, lambda: broken):
        aimed = labels[examples] if targets is None else targets[examples, restart]
        pairs = Pairs(examples, images[examples], labels[examples], aimed, eps=eps[examples])
        draw = keyed_uniform if norm == "linf" else keyed_normal
        start = draw(seed, f"apgd/{loss}/{norm}", ids[examples], images.shape[1:], extra=restart)
        start = start.mul_(2.0).sub_(1.0) if norm == "linf" else start
        ascent = Ascent(model, norm, loss, found, broken=broken)
        if norm == "l1":
            _in_stages(ascent, pairs, start, iterations)
        else:
            radius = per_example(pairs.radius(), start)
            ascent.run(pairs, scaled(start, norm).mul_(radius).add_(pairs.clean), iterations)
    return found


def _in_stages(ascent: Ascent, pairs: Pairs, points: Tensor, iterations: int) -> None:
    """L1: from three times the radius down to the radius, each stage from the best point of the one before."""
    early = math.ceil(_L1_EARLY * iterations)
    points = pairs.clean + points
    for steps, width in zip((early, early, iterations - 2 * early), L1_WIDTHS, strict=True):
        points = pairs.clean + project_l1_box(points - pairs.clean, pairs.clean, pairs.radius(width))
        pairs, points = ascent.run(pairs, points, max(steps, 0), width)
