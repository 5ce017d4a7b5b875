"""sigma-zero: few changed values, by gradient descent on a smooth stand-in for the L0 norm.

Source: Cina, Villani, Pintor, Schonherr, Biggio, Pelillo, "sigma-zero: gradient-based optimization of l0-norm
adversarial examples", ICLR 2025, algorithm 1 and its default settings.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from bench.attacks.losses import answers, margin
from bench.attacks.norms import per_example
from bench.attacks.pgd import attacked_model
from bench.attacks.registry import AttackResult, register_attack
from bench.core.bounds import Steps

_SMOOTHING = 1e-3
_STEP = 1.0
_LAST_STEP = 0.1
_THRESHOLD = 0.3
_THRESHOLD_STEP = 0.01
_GRADIENT_STEPS = 2**12
"""Gradients are rounded to this part of the image's largest entry."""


def sigma_zero(model: nn.Module, images: Tensor, labels: Tensor, *, steps: int) -> tuple[Tensor, Tensor]:
    """Minimise the number of changed values.

    Args:
        images: (N, C, H, W) float32 in [0, 1].

    Returns:
        (N, C, H, W) adversarial images, and (N,) how many of their values differ from the clean image; infinity where
        none was found, and then the image is the clean one. A misclassified clean image needs none.
    """
    with attacked_model(model), torch.no_grad():
        wrong = answers(model(images)) != labels
    best, fewest = images.clone(), torch.where(wrong, 0.0, torch.inf)
    delta, first, second = (torch.zeros_like(images) for _ in range(3))
    threshold = images.new_full((len(images),), _THRESHOLD)
    with attacked_model(model):
        for step in range(steps):
            moving = delta.detach().requires_grad_(True)
            logits = model(images + moving)
            gap = torch.where(logits.isfinite().all(1), margin(logits, labels), torch.inf)
            squares = moving.square()
            sparsity = (squares / (squares + _SMOOTHING)).flatten(1).mean(1)
            (gradient,) = torch.autograd.grad(((-gap).clamp_min(0.0) + sparsity).sum(), moving)
            with torch.no_grad():
                count = (delta != 0).flatten(1).sum(1).to(fewest.dtype)
                better = (gap > 0) & (count < fewest)
                fewest = torch.where(better, count, fewest)
                best = torch.where(per_example(better, best), images + delta, best)
                size = _LAST_STEP + 0.5 * (_STEP - _LAST_STEP) * (1 + torch.cos(torch.tensor(torch.pi * step / steps)))
                gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
                largest = gradient.flatten(1).abs().amax(1)
                gradient /= per_example(torch.where(largest == 0, 1.0, largest), gradient)
                # Adam steps as far along a gradient that is rounding alone as along any other: such become zero, or the
                # count of changed values depends on how a batch size or a thread count rounds the logits
                gradient = (gradient * _GRADIENT_STEPS).round() / _GRADIENT_STEPS
                # Adam, with its usual constants
                first = 0.9 * first + 0.1 * gradient
                second = 0.999 * second + 0.001 * gradient.square()
                corrected = (second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
                delta = delta - float(size) * first / (1 - 0.9 ** (step + 1)) / corrected
                delta = (images + delta).clamp(0.0, 1.0) - images
                change = _THRESHOLD_STEP * float(size)
                threshold = torch.where(gap > 0, threshold + change, threshold - change).clamp(0.0, 1.0)
                delta = torch.where(delta.abs() < per_example(threshold, delta), 0.0, delta)
    return best, fewest


def without_needless(model: nn.Module, images: Tensor, labels: Tensor, found: Tensor, *, rounds: int) -> Tensor:
    """Greedily take back changes that a misclassified image does not need; (N, C, H, W), misclassified as `found` is.

    A round moves the changed values to the ends of [0, 1] that raise the margin, where that raises it, and takes back
    the change that the gradient says matters least, where the image stays misclassified without it; one that turns out
    to be needed is not tried again.
    """
    points, needed = found, torch.zeros_like(found, dtype=torch.bool)
    for _ in range(rounds):
        given = points.detach().requires_grad_(True)
        with attacked_model(model):
            before = margin(model(given), labels)
            (gradient,) = torch.autograd.grad(before.sum(), given)
            with torch.no_grad():
                changed = points != images
                ends = torch.where(changed, (gradient > 0).to(points.dtype), points)
                raised = margin(model(ends), labels) > before
                points = torch.where(per_example(raised & (before > 0), points), ends, points)
                worth = torch.where((points != images) & ~needed, gradient * (points - images), torch.inf).flatten(1)
                least = torch.zeros_like(worth, dtype=torch.bool).scatter_(1, worth.argmin(1, keepdim=True), True)
                least &= worth.isfinite()
                without = torch.where(least.view_as(points), images, points)
                fools = per_example((answers(model(without)) != labels) & (before > 0), points)
                points = torch.where(fools, without, points)
                needed |= least.view_as(points) & ~fools
    return points


@register_attack("sigma-zero", norms=("l0", "l1"), kind="minimum", needs_gradients=True)
def sigma_zero_in_batches(
    model: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = 256, steps: Steps = 1000,
    rounds: Annotated[int, Field(ge=0, le=100_000)] = 0,
) -> AttackResult:  # fmt: skip
    """Few changed values, each by any amount; the number of steps is the paper's.

    Args:
        rounds: in so many, changes that turn out needless are taken back (ours).
    """
    found = []
    for part, truth in zip(torch.split(images, batch_size), torch.split(labels, batch_size), strict=True):
        best = sigma_zero(model, part, truth, steps=steps)[0]
        found.append(without_needless(model, part, truth, best, rounds=rounds))
    return AttackResult(torch.cat(found))
