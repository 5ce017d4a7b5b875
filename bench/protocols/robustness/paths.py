"""Whether a margin changes along a straight path as its gradients say: stairs and steps that no gradient shows.

Where a net's answers follow its gradients, the change over a piece of a path is the mean slope of the piece's ends
times its length, but for kinks, which matter less the shorter the pieces are. Stairs (a quantised input, winners that
take all, noise) do not get smaller with the pieces, nor does a single step.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from bench.attacks.losses import advantage
from bench.attacks.norms import per_example

PIECES = 8
ROUGH = 0.25
"""More than this share of the changes unseen by the gradients is rough.

Of 32 training images each, nine tenths of those of 22 nets are below 0.11, the quantised net's and winners' above 0.3.
"""
HALVINGS = 6
JUMP = 0.1
"""An unseen change of more than this share of all changes, in a 512th of the path, is a jump."""


@dataclass(frozen=True, slots=True)
class _Point:
    """Where examples are on their paths: (n,) margins, and their slopes over the whole path."""

    margin: Tensor
    slope: Tensor


@dataclass(frozen=True, slots=True)
class Path:
    """Straight ways from images to others, (n, C, H, W), of examples with the labels (n,)."""

    model: nn.Module
    start: Tensor
    end: Tensor
    labels: Tensor

    def surprises(self, *, halvings: int = 0) -> tuple[Tensor, Tensor]:
        """(n,) shares of the margin's changes: those unseen in all pieces, and in the worst piece, halved so often.

        Both are 0 where the margin does not move more than rounding does.
        """
        points = [self._at(self.start.new_full((len(self.start),), part / PIECES)) for part in range(PIECES + 1)]
        pairs = list(pairwise(points))
        changes = torch.stack([after.margin - before.margin for before, after in pairs])
        promised = torch.stack([(before.slope + after.slope) / (2 * PIECES) for before, after in pairs])
        unseen = (changes - promised).abs()
        both, larger = (changes.abs() + promised.abs()).sum(0), torch.maximum(changes.abs(), promised.abs()).sum(0)
        visible = larger > self._rounding()
        rough = torch.where(visible, unseen.sum(0) / both, 0.0)
        jump = self._worst(points, unseen.argmax(0), halvings) if halvings else unseen.amax(0)
        return rough, torch.where(visible, jump / larger, 0.0)

    def _worst(self, points: list[_Point], worst: Tensor, halvings: int) -> Tensor:
        """(n,) the unseen change of the half with more of it, of the half of that, and so on."""
        margins, slopes = torch.stack([one.margin for one in points]), torch.stack([one.slope for one in points])

        def of(index: Tensor) -> _Point:
            return _Point(margins.gather(0, index[None])[0], slopes.gather(0, index[None])[0])

        low, high, begin, length = of(worst), of(worst + 1), worst / PIECES, 1.0 / PIECES
        for _ in range(halvings):
            length /= 2
            middle = self._at(begin + length)
            in_first = _unseen(low, middle, length) >= _unseen(middle, high, length)
            low, high = _either(in_first, low, middle), _either(in_first, middle, high)
            begin = torch.where(in_first, begin, begin + length)
        return _unseen(low, high, length)

    def _at(self, part: Tensor) -> _Point:
        """Where (n,) parts of the paths are gone."""
        way = self.end - self.start
        images = (self.start + per_example(part.to(way), way) * way).detach().requires_grad_(True)
        with torch.enable_grad():
            margin = advantage(self.model(images), self.labels)
        (gradient,) = torch.autograd.grad(margin.sum(), images)
        slope = (gradient.nan_to_num(0.0, 0.0, 0.0) * way).flatten(1).sum(1)
        return _Point(margin.detach(), slope)

    def _rounding(self) -> Tensor:
        with torch.no_grad():
            logits = self.model(self.start)
        rounding: Tensor = 1e-4 * (logits.amax(1) - logits.amin(1)) + 1e-5 * logits.abs().amax(1)
        return rounding


def _unseen(low: _Point, high: _Point, length: float) -> Tensor:
    unseen: Tensor = (high.margin - low.margin - length * (low.slope + high.slope) / 2).abs()
    return unseen


def _either(first: Tensor, one: _Point, other: _Point) -> _Point:
    return _Point(torch.where(first, one.margin, other.margin), torch.where(first, one.slope, other.slope))
