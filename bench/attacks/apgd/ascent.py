"""The ascent of APGD: pairs of example and restart on their way up, until their example is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor, nn

from bench.attacks.losses import answers, dlr, softmax_cross_entropy, targeted_dlr
from bench.attacks.norms import at_unit_size, distance, per_example
from bench.attacks.projections import project_l1_box
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
_TINY = 1e-12


@dataclass(slots=True)
class _Rows:
    """Tensors with a row for each pair."""

    def keep(self, kept: Tensor) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, _Rows):
                value.keep(kept)
            else:
                setattr(self, one.name, value[kept])


@dataclass(slots=True)
class Pairs(_Rows):
    """Pairs of example and restart: where the example is, its image and label, the class aimed at, and its radius."""

    examples: Tensor
    clean: Tensor
    labels: Tensor
    targets: Tensor
    eps: Tensor

    def radius(self, width: float = 1.0, share: float = 1.0) -> Tensor:
        """(N,) a share of the radius of a ball so much wider, rounded once."""
        return (share * (width * self.eps)).to(self.clean.dtype)

    def moved(self, points: Tensor) -> Tensor:
        """(N,) how many pixels differ from the clean image's."""
        return (points != self.clean).flatten(1).sum(1).to(self.clean.dtype)


@dataclass(slots=True)
class _Points(_Rows):
    """Images, the gradient there, and the loss."""

    images: Tensor
    gradient: Tensor
    losses: Tensor

    def take(self, other: _Points, chosen: Tensor) -> _Points:
        """With the other's points where chosen."""
        rows = per_example(chosen, self.images)
        return _Points(
            torch.where(rows, other.images, self.images),
            torch.where(rows, other.gradient, self.gradient),
            torch.where(chosen, other.losses, self.losses),
        )


@dataclass(slots=True)
class _Step(_Rows):
    """The step of each pair.

    Attributes:
        size: (N,) length.
        raised: (N,) how many steps since the last checkpoint raised the loss.
        checked: (N,) the highest loss at the last checkpoint.
        reduced: (N,) bool, whether the step was halved there.
        moved: (N,) L1: how many pixels of the best point had been moved there.
    """

    size: Tensor
    raised: Tensor
    checked: Tensor
    reduced: Tensor
    moved: Tensor


@dataclass(slots=True)
class _State(_Rows):
    """Pairs on their way up; `hit` says whether `caught` holds a misclassified point inside the radius."""

    pairs: Pairs
    now: _Points
    best: _Points
    step: _Step
    previous: Tensor
    hit: Tensor
    caught: Tensor


def scaled(values: Tensor, norm: Norm) -> Tensor:
    """Values over their norm, per example."""
    return values / per_example(distance(values, norm) + _TINY, values)


@dataclass(frozen=True, slots=True)
class Ascent:
    """The ascent of pairs; what it finds goes into `found` and `broken`, which have a row for each example."""

    model: nn.Module
    norm: Norm
    loss: ApgdLoss
    found: Tensor
    broken: Tensor

    def run(self, pairs: Pairs, start: Tensor, iterations: int, width: float = 1.0) -> tuple[Pairs, Tensor]:
        """Climb in balls of `width` times the radius; what is misclassified counts where that is the radius itself.

        Returns:
            the pairs that are left, and the points of the highest loss (N, C, H, W).
        """
        state = self._begin(pairs, start, width)
        until, interval = 0, max(int((0.04 if self.norm == "l1" else 0.22) * iterations), 1)
        for iteration in range(iterations):
            self._move(state, 1.0 if iteration == 0 else 1.0 - MOMENTUM, width)
            before, last = state.now.losses, iteration == iterations - 1
            self._evaluate(state, counts=width == 1.0, with_gradient=not last)
            # the first step is measured against a loss of 0, as in AutoAttack
            state.step.raised += state.now.losses > (before if iteration else 0.0)
            state.best = state.best.take(state.now, state.now.losses > state.best.losses)
            until += 1
            if until == interval and not last:
                self._checkpoint(state, interval, width)
                until, shorter = 0, interval - max(int(0.03 * iterations), 1)
                interval = interval if self.norm == "l1" else max(shorter, int(0.06 * iterations), 1)
            if (iteration + 1) % CHECK_EVERY == 0 and not self._drop_broken(state):
                break
        self._drop_broken(state)
        return state.pairs, state.best.images

    def _begin(self, pairs: Pairs, start: Tensor, width: float) -> _State:
        images = start.clamp(0.0, 1.0)
        losses, none = torch.zeros_like(images.flatten(1)[:, 0]), torch.zeros_like(pairs.labels, dtype=torch.bool)
        size = pairs.radius(width) if self.norm == "l1" else pairs.radius(2.0 * width)
        step = _Step(size, losses.clone(), losses, ~none, moved=pairs.moved(images))
        now = _Points(images, images, losses)
        state = _State(pairs, now, now, step, previous=images, hit=none, caught=images)
        self._evaluate(state, counts=width == 1.0, with_gradient=True)
        state.best, step.checked = replace(state.now), state.now.losses
        return state

    def _evaluate(self, state: _State, *, counts: bool, with_gradient: bool) -> None:
        """The losses, and the gradient unless it is not needed; a misclassified point is caught."""
        pairs, gradient = state.pairs, state.now.gradient
        points = state.now.images.detach().requires_grad_(with_gradient)
        with torch.set_grad_enabled(with_gradient):
            logits = self.model(points)
            if self.loss == "dlr-targeted":
                losses = targeted_dlr(logits, pairs.labels, pairs.targets)
            else:
                losses = _UNTARGETED[self.loss](logits, pairs.labels)
            if with_gradient:
                gradient = torch.autograd.grad(losses.sum(), points)[0].nan_to_num(0.0, 0.0, 0.0)
        state.now = _Points(points.detach(), gradient, losses.detach())
        if counts:
            wrong = answers(logits.detach()) != pairs.labels
            state.caught = torch.where(per_example(wrong, points), points.detach(), state.caught)
            state.hit = state.hit | wrong

    def _move(self, state: _State, weight: float, width: float) -> None:
        """One step along the gradient, mixed with the step before."""
        pairs, now = state.pairs, state.now
        points, step = now.images, per_example(state.step.size, now.images)
        if self.norm == "l1":
            share = state.step.moved / pairs.clean[0].numel() / SPARSER
            direction = _sparse_signs(now.gradient, share)
            stride = step / (per_example(distance(direction, "l1"), points) + 1e-10)
            ahead = direction.mul_(stride).add_(points).sub_(pairs.clean)
            ahead = project_l1_box(ahead, pairs.clean, pairs.radius(width)).add_(pairs.clean)
        else:
            direction = now.gradient.sign() if self.norm == "linf" else scaled(at_unit_size(now.gradient), "l2")
            ahead = self._inside(direction.mul_(step).add_(points), pairs)
            if weight < 1.0:
                mixed = torch.lerp(points, ahead, weight).add_(points - state.previous, alpha=1.0 - weight)
                ahead = self._inside(mixed, pairs)
        state.previous, state.now = points, _Points(ahead, now.gradient, now.losses)

    def _inside(self, points: Tensor, pairs: Pairs) -> Tensor:
        """Into the ball, then into [0, 1]; overwrites the points."""
        clean, radius = pairs.clean, per_example(pairs.radius(), points)
        if self.norm == "linf":
            return torch.minimum(torch.maximum(points, clean - radius), clean + radius).clamp_(0.0, 1.0)
        delta = points.sub_(clean)
        scale = (pairs.radius() * distance(delta, "l2").clamp_min_(_TINY).reciprocal_()).clamp_max_(1.0)
        return delta.mul_(per_example(scale, delta)).add_(clean).clamp_(0.0, 1.0)

    def _checkpoint(self, state: _State, steps: int, width: float) -> None:
        """Halve steps that do not pay and go back to the best point; in L1, move fewer pixels."""
        step, best = state.step, state.best
        if self.norm == "l1":
            moved = state.pairs.moved(best.images)
            back = moved < 0.95 * step.moved
            most, least = state.pairs.radius(width), state.pairs.radius(width, SMALLEST_STEP)
            step.size = torch.where(back, most, (step.size / SPARSER).clamp(least, most))
            step.moved = moved
        else:
            idle = ~step.reduced & (step.checked >= best.losses)
            back = (step.raised <= IMPROVING * steps) | idle
            step.size = torch.where(back, step.size / 2.0, step.size)
            step.reduced, step.checked = back, best.losses
        step.raised = torch.zeros_like(step.raised)
        state.now = replace(state.now.take(best, back), losses=state.now.losses)

    def _drop_broken(self, state: _State) -> bool:
        """Enter what was caught and let the pairs of broken examples go; returns whether anything is left."""
        caught = state.pairs.examples[state.hit]
        self.found[caught], self.broken[caught] = state.caught[state.hit], True
        kept = ~self.broken[state.pairs.examples]
        if not bool(kept.all()):
            state.keep(kept)
        return bool(kept.any())


def _sparse_signs(gradient: Tensor, share: Tensor) -> Tensor:
    """L1: the signs of the gradient in the `share` (N,) of the pixels where it is largest."""
    size = gradient.abs().flatten(1)
    count = size.shape[1]
    place = ((1.0 - share) * count).clamp_(0, count - 1).long()
    least = size.sort(dim=1).values.gather(1, place[:, None])
    return (gradient.flatten(1).sign() * (size >= least)).view_as(gradient)


_UNTARGETED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"ce": softmax_cross_entropy, "dlr": dlr}
