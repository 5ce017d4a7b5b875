"""How the sweep's step size, sparsity and ball shrink over a radius's steps.

The constants were chosen on 200 to 250 test images of `standard`, `at_l2`, `at_linf` and an IR model for the lowest
robust accuracy at 40 steps; they are part of the attack, not of a suite. What mattered by far the most: starting L2
and L1 at the sphere (not near the image) and moving all pixels at first in L1, since nets that were trained in L-inf
swallow small perturbations (at_linf, L2, radius 1.5: 58 % against 20 %); and restarts in a ball that is wider at first
(the same: 12 %) and that, in L1, move a tenth of the pixels (at_l2, radius 15: 29 % against 38 %). Refining was chosen
on 500 images: 20 gradients a restart with 20 more for what came near break at least as much as 40 for every image, at
70 % of the cost (at_l2, the three radii of reference: 66.2, 65.4 and 28.0 % against 67.2, 65.6 and 28.0 %).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.core.threat import Norm

SHRINKING = 0.5
"""Share of an attack's steps over which a widened ball shrinks to the radius."""


@dataclass(frozen=True, slots=True)
class StepSchedule:
    """One norm's schedule.

    Attributes:
        first: the first step's length over eps; steps shrink along half a cosine.
        last: the last step's length over the first one's.
        momentum: share of the last move that is added to the next.
        dense: L1 only, the share of pixels that move in the first step.
        sparse: L1 only, the share that moves in the last; in between the share shrinks geometrically.
        restart_dense: L1 only, `dense` of the sweep's restarts.
        restart_width: the ball's width over eps in which the sweep's restarts begin.
        refine_first: `first` of the sweep's refining.
        refine_dense: L1 only, `dense` of the sweep's refining.
    """

    first: float
    last: float
    momentum: float
    dense: float = 1.0
    sparse: float = 1.0
    restart_dense: float = 1.0
    restart_width: float = 3.0
    refine_first: float = 0.5
    refine_dense: float = 1.0

    def step_sizes(self, steps: int, device: torch.device) -> Tensor:
        """(steps + 1,) lengths over eps."""
        share = torch.arange(steps + 1, device=device) / steps
        return self.first * (0.5 * (1.0 + torch.cos(torch.pi * share))).clamp_min(self.last)

    def sparsities(self, steps: int, device: torch.device) -> Tensor:
        """(steps + 1,) shares of pixels."""
        share = torch.arange(steps + 1, device=device) / steps
        return self.dense * (self.sparse / self.dense) ** share


SCHEDULES: dict[Norm, StepSchedule] = {
    "linf": StepSchedule(first=1.0, last=0.02, momentum=0.5),
    "l2": StepSchedule(first=1.0, last=0.02, momentum=0.5),
    "l1": StepSchedule(
        first=2.0, last=0.02, momentum=0.0, dense=1.0, sparse=0.003, restart_dense=0.1, refine_dense=0.03
    ),
}


def ball_widths(widen: float, steps: int) -> list[float]:
    """The ball's width over eps at the start and after each of `steps + 1` steps; 1 in the latter part."""
    last = max(SHRINKING * steps, 1.0)
    return [max(1.0, widen - (widen - 1.0) * step / last) for step in range(steps + 2)]
