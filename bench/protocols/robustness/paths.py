"""Whether a margin changes along a straight path as its gradients say: stairs and steps that no gradient shows.

Where a net's answers follow its gradients, the change over a piece of a path is the mean slope of the piece's ends
times its length, but for kinks, which matter less the shorter the pieces are. Stairs (a quantised input, winners that
take all, noise) do not get smaller with the pieces, nor does a single step.
"""

from __future__ import annotations

from dataclasses import dataclass

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
        parts = (self.start.new_full((len(self.start),), part / PIECES) for part in range(PIECES + 1))
        points = torch.stack([self._at(part) for part in parts])
        margins, slopes = points.unbind(1)
        changes, promised = margins[1:] - margins[:-1], (slopes[:-1] + slopes[1:]) / (2 * PIECES)
        unseen = (changes - promised).abs()
        both, larger = (changes.abs() + promised.abs()).sum(0), torch.maximum(changes.abs(), promised.abs()).sum(0)
        with torch.no_grad():
            visible = larger > rounding(self.model(self.start))
        rough = torch.where(visible, unseen.sum(0) / both, 0.0)
        jump = self._worst(points, unseen.argmax(0), halvings) if halvings else unseen.amax(0)
        return rough, torch.where(visible, jump / larger, 0.0)

    def _worst(self, points: Tensor, worst: Tensor, halvings: int) -> Tensor:
        """(n,) the unseen change of the half with more of it, of the half of that, and so on."""
        low, high = (points.gather(0, index.expand(1, 2, -1))[0] for index in (worst, worst + 1))
        begin, length = worst / PIECES, 1.0 / PIECES
        for _ in range(halvings):
            length /= 2
            middle = self._at(begin + length)
            in_first = _unseen(low, middle, length) >= _unseen(middle, high, length)
            low, high = torch.where(in_first, low, middle), torch.where(in_first, middle, high)
            begin = torch.where(in_first, begin, begin + length)
        return _unseen(low, high, length)

    def _at(self, part: Tensor) -> Tensor:
        """(2, n) margins, and their slopes over the whole path, where (n,) parts of the paths are gone."""
        way = self.end - self.start
        images = (self.start + per_example(part.to(way), way) * way).detach().requires_grad_(True)
        with torch.enable_grad():
            margin = advantage(self.model(images), self.labels)
        (gradient,) = torch.autograd.grad(margin.sum(), images)
        slope = (gradient.nan_to_num(0.0, 0.0, 0.0) * way).flatten(1).sum(1)
        return torch.stack([margin.detach(), slope])


def rounding(logits: Tensor) -> Tensor:
    """(N,) how far rounding may move the margins of logits (N, K)."""
    return 1e-4 * (logits.amax(1) - logits.amin(1)) + 1e-5 * logits.abs().amax(1)


def _unseen(low: Tensor, high: Tensor, length: float) -> Tensor:
    return (high[0] - low[0] - length * (low[1] + high[1]) / 2).abs()
