"""APGD: projected gradient ascent whose step halves by itself, on the cross-entropy or the (targeted) DLR loss.

Source: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks", ICML 2020; L1: Croce and Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers",
ICML 2021. Steps, momentum, checkpoints and losses are those of the papers as AutoAttack has them. What is ours: an
example leaves as soon as it is broken, targets and restarts share a batch, the last point's gradient is not taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from bench.attacks.losses import answers, dlr, softmax_cross_entropy, targeted_dlr
from bench.attacks.norms import at_unit_size, distance, per_example
from bench.attacks.projections import project_l1_box
from bench.attacks.target_pairs import nearest_classes, pair_batches
from bench.core.keyed_random import keyed_normal, keyed_uniform
from bench.core.threat import Norm

ApgdLoss = Literal["ce", "dlr", "dlr-targeted"]
MOMENTUM = 0.25
IMPROVING = 0.75
"""A step halves where fewer than this share of the steps since the last checkpoint raised the loss."""
SPARSER = 1.5
"""L1: a step moves this many times fewer pixels than the best point has moved; the step shrinks by as much."""
SMALLEST_STEP = 0.1
CHECK_EVERY = 4
"""Steps between two looks at what is broken, each of which waits for the device."""
L1_WIDTHS = (3.0, 2.0, 1.0)
"""L1: the ball's width over the radius in the three stages."""
_L1_EARLY = 0.3
"""L1: the share of the steps that each of the first two stages has."""
_TINY = 1e-12


def apgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    example_ids: Tensor,
    *,
    norm: Norm,
    eps: float,
    loss: ApgdLoss,
    iterations: int,
    restarts: int,
    seed: int = 0,
    batch_size: int = 256,
) -> Tensor:
    """Look for misclassified images within `eps`.

    Args:
        images: (N, C, H, W) in [0, 1].
        labels: (N,) int64, on the images' device.
        example_ids: (N,) int64; they key the random starts.
        restarts: target classes, the nearest first, or else random starts.
        batch_size: the most pairs of example and restart that are attacked at once.

    Returns:
        (N, C, H, W) the first misclassified image found, or the image itself.
    """
    found, broken = images.clone(), torch.zeros_like(labels, dtype=torch.bool)
    targets = nearest_classes(model, images, restarts, batch_size) if loss == "dlr-targeted" else None
    for examples, restart in pair_batches(len(images), restarts, batch_size, lambda: broken):
        aimed = labels[examples] if targets is None else targets[examples, restart]
        clean = images[examples]
        ascent = _Ascent(model, clean, labels[examples], aimed, examples, norm, loss, found, broken)
        start = _noise(clean, example_ids[examples], restart, norm, f"apgd/{loss}", seed)
        if norm == "l1":
            _in_stages(ascent, start, eps, iterations)
        else:
            ascent.run(_scaled(start, norm).mul_(eps).add_(clean), eps, iterations)
    return found


def _noise(images: Tensor, ids: Tensor, restart: Tensor, norm: Norm, stream: str, seed: int) -> Tensor:
    if norm == "linf":
        return keyed_uniform(seed, f"{stream}/{norm}", ids, images.shape[1:], restart).mul_(2.0).sub_(1.0)
    return keyed_normal(seed, f"{stream}/{norm}", ids, images.shape[1:], restart)


def _scaled(values: Tensor, norm: Norm) -> Tensor:
    """Values over their norm, per example."""
    return values / per_example(distance(values, norm) + _TINY, values)


def _in_stages(ascent: _Ascent, start: Tensor, eps: float, iterations: int) -> None:
    """L1: from three times the radius down to the radius, each stage from the best point of the one before."""
    early = math.ceil(_L1_EARLY * iterations)
    points = ascent.clean + start
    for steps, width in zip((early, early, iterations - 2 * early), L1_WIDTHS, strict=True):
        radius = width * eps
        points = ascent.clean + _project_l1(points - ascent.clean, ascent.clean, radius)
        points = ascent.run(points, radius, max(steps, 0), counts=width == 1.0)


def _project_l1(delta: Tensor, clean: Tensor, eps: float) -> Tensor:
    return project_l1_box(delta, clean, delta.new_full((len(delta),), eps))


@dataclass(slots=True)
class _Ascent:
    """A batch of pairs on their way up.

    Attributes:
        targets: (N,) the classes aimed at; without a meaning where the loss has no target.
        examples: (N,) where the pairs' examples are in `found` and `broken`.
        step: (N,) sizes.
        raised: (N,) how many steps since the last checkpoint raised the loss.
        share: (N,) L1: how many of the pixels a step moves.
        hit: (N,) whether `caught` holds a misclassified point inside the radius.
    """

    model: nn.Module
    clean: Tensor
    labels: Tensor
    targets: Tensor
    examples: Tensor
    norm: Norm
    loss: ApgdLoss
    found: Tensor
    broken: Tensor
    eps: float = 0.0
    counts: bool = True
    points: Tensor = field(init=False)
    previous: Tensor = field(init=False)
    gradient: Tensor = field(init=False)
    losses: Tensor = field(init=False)
    best: Tensor = field(init=False)
    best_gradient: Tensor = field(init=False)
    best_losses: Tensor = field(init=False)
    step: Tensor = field(init=False)
    raised: Tensor = field(init=False)
    checked_losses: Tensor = field(init=False)
    reduced: Tensor = field(init=False)
    moved: Tensor = field(init=False)
    share: Tensor = field(init=False)
    hit: Tensor = field(init=False)
    caught: Tensor = field(init=False)

    def run(self, start: Tensor, eps: float, iterations: int, *, counts: bool = True) -> Tensor:
        """Climb from a start; what is misclassified on the way goes into `found` where it counts.

        Returns:
            (N, C, H, W) the points of the highest loss.
        """
        self._begin(start, eps, counts)
        until, interval = 0, _first_interval(self.norm, iterations)
        for iteration in range(iterations):
            self._move(1.0 if iteration == 0 else 1.0 - MOMENTUM)
            before, last = self.losses, iteration == iterations - 1
            self._evaluate(with_gradient=not last)
            # the first step is measured against a loss of 0, as in AutoAttack
            self.raised += self.losses > (before if iteration else 0.0)
            self._remember_best()
            until += 1
            if until == interval and not last:
                self._checkpoint(interval)
                until, interval = 0, _next_interval(self.norm, interval, iterations)
            if (iteration + 1) % CHECK_EVERY == 0 and not self._drop_broken():
                break
        self._drop_broken()
        return self.best

    def _begin(self, start: Tensor, eps: float, counts: bool) -> None:
        self.eps, self.counts = eps, counts
        self.points = start.clamp(0.0, 1.0)
        self.previous = self.caught = self.points
        self.hit = torch.zeros_like(self.labels, dtype=torch.bool)
        self._evaluate(with_gradient=True)
        self.best, self.best_gradient, self.best_losses = self.points, self.gradient, self.losses
        self.checked_losses, self.raised = self.losses, torch.zeros_like(self.losses)
        self.reduced = torch.ones_like(self.hit)
        self.step = torch.full_like(self.losses, eps if self.norm == "l1" else 2.0 * eps)
        self.moved = self._moved(self.points)
        self.share = self.moved / self.clean[0].numel() / SPARSER

    def _moved(self, points: Tensor) -> Tensor:
        """(N,) how many pixels differ from the clean image's."""
        return (points != self.clean).flatten(1).sum(1).to(self.clean.dtype)

    def _evaluate(self, *, with_gradient: bool) -> None:
        """The losses, and the gradient unless it is not needed; a misclassified point is caught."""
        points = self.points.detach().requires_grad_(with_gradient)
        with torch.set_grad_enabled(with_gradient):
            logits = self.model(points)
            if self.loss == "ce":
                losses = softmax_cross_entropy(logits, self.labels)
            elif self.loss == "dlr":
                losses = dlr(logits, self.labels)
            else:
                losses = targeted_dlr(logits, self.labels, self.targets)
            if with_gradient:
                (gradient,) = torch.autograd.grad(losses.sum(), points)
                self.gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        self.losses = losses.detach()
        if self.counts:
            wrong = answers(logits.detach()) != self.labels
            self.caught = torch.where(per_example(wrong, points), points.detach(), self.caught)
            self.hit = self.hit | wrong

    def _remember_best(self) -> None:
        better = self.losses > self.best_losses
        self.best_losses = torch.where(better, self.losses, self.best_losses)
        better = per_example(better, self.points)
        self.best = torch.where(better, self.points, self.best)
        self.best_gradient = torch.where(better, self.gradient, self.best_gradient)

    def _move(self, weight: float) -> None:
        """One step along the gradient, mixed with the step before."""
        points, step = self.points, per_example(self.step, self.points)
        if self.norm == "l1":
            direction = self._sparse_signs()
            stride = step / (per_example(distance(direction, "l1"), points) + 1e-10)
            ahead = direction.mul_(stride).add_(points).sub_(self.clean)
            self.previous, self.points = points, _project_l1(ahead, self.clean, self.eps).add_(self.clean)
            return
        direction = self.gradient.sign() if self.norm == "linf" else _scaled(at_unit_size(self.gradient), "l2")
        ahead = self._inside(direction.mul_(step).add_(points))
        if weight < 1.0:
            mixed = torch.lerp(points, ahead, weight).add_(points - self.previous, alpha=1.0 - weight)
            ahead = self._inside(mixed)
        self.previous, self.points = points, ahead

    def _sparse_signs(self) -> Tensor:
        """L1: the signs of the gradient in the `share` of the pixels where it is largest."""
        size = self.gradient.abs().flatten(1)
        count = size.shape[1]
        place = ((1.0 - self.share) * count).clamp_(0, count - 1).long()
        least = size.sort(dim=1).values.gather(1, place[:, None])
        return (self.gradient.flatten(1).sign() * (size >= least)).view_as(self.gradient)

    def _inside(self, points: Tensor) -> Tensor:
        """Into the ball, then into [0, 1]; overwrites the points."""
        if self.norm == "linf":
            low, high = self.clean - self.eps, self.clean + self.eps
            return torch.minimum(torch.maximum(points, low), high).clamp_(0.0, 1.0)
        delta = points.sub_(self.clean)
        scale = (self.eps / distance(delta, "l2").clamp_min_(_TINY)).clamp_max_(1.0)
        return delta.mul_(per_example(scale, delta)).add_(self.clean).clamp_(0.0, 1.0)

    def _checkpoint(self, steps: int) -> None:
        """Halve steps that do not pay and go back to the best point; in L1, move fewer pixels."""
        if self.norm == "l1":
            moved = self._moved(self.best)
            back = moved < 0.95 * self.moved
            self.step = torch.where(back, self.eps, (self.step / SPARSER).clamp(SMALLEST_STEP * self.eps, self.eps))
            self.moved, self.share = moved, moved / self.clean[0].numel() / SPARSER
        else:
            idle = ~self.reduced & (self.checked_losses >= self.best_losses)
            back = (self.raised <= IMPROVING * steps) | idle
            self.step = torch.where(back, self.step / 2.0, self.step)
            self.reduced, self.checked_losses = back, self.best_losses
        self.raised = torch.zeros_like(self.raised)
        back = per_example(back, self.points)
        self.points = torch.where(back, self.best, self.points)
        self.gradient = torch.where(back, self.best_gradient, self.gradient)

    def _drop_broken(self) -> bool:
        """Enter what was caught and let the pairs of broken examples go; returns whether anything is left."""
        caught = self.examples[self.hit]
        self.found[caught], self.broken[caught] = self.caught[self.hit], True
        kept = ~self.broken[self.examples]
        if not bool(kept.all()):
            for name in _PER_PAIR:
                setattr(self, name, getattr(self, name)[kept])
        return bool(len(self.examples))


_PER_PAIR = (
    "clean", "labels", "targets", "examples", "points", "previous", "gradient", "losses", "best", "best_gradient",
    "best_losses", "step", "raised", "checked_losses", "reduced", "moved", "share", "hit", "caught",
)  # fmt: skip


def _first_interval(norm: Norm, iterations: int) -> int:
    return max(int((0.04 if norm == "l1" else 0.22) * iterations), 1)


def _next_interval(norm: Norm, interval: int, iterations: int) -> int:
    if norm == "l1":
        return interval
    return max(interval - max(int(0.03 * iterations), 1), int(0.06 * iterations), 1)
