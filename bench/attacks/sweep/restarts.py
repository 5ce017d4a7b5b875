"""The sweep's restarts at one radius, one after another: what a suite pins, and their timetables as tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.attacks.losses import LossName
from bench.attacks.sweep.schedules import SCHEDULES, StepSchedule, ball_widths
from bench.core.threat import Norm

NEAR = 0.3
"""Refining is for what a restart has brought down to this share of the clean image's margin."""


@dataclass(frozen=True, slots=True)
class SweepSettings:
    """What a suite pins of the sweep.

    Attributes:
        steps: gradient steps per example, radius and restart.
        losses: one restart for each loss, in this order.
        patience: how many radii in a row may withstand the attack before the smaller ones are taken as withstanding
            too (any point of a smaller ball lies in the larger one); 0 attacks every radius.
        targets: where not 0, the restarts attack so many classes one by one with the margin, the nearest to the clean
            image first, in place of the losses after the first.
        seed: keys the random starts, together with the example's id.
        refine: so many further steps, on the margin and small ones, from where a restart has ended near the boundary;
            0 leaves it out. They break most of what a short restart misses, for a small part of a long restart's cost.
    """

    steps: int = 40
    losses: tuple[LossName, ...] = ("margin", "cross_entropy")
    patience: int = 1
    seed: int = 0
    targets: int = 0
    refine: int = 0


@dataclass(frozen=True, slots=True)
class Restart:
    """One restart at one radius.

    Attributes:
        target: the rank of its target class among the wrong ones by the clean logits; None for no target.
        width: the ball's width over eps at the start.
        refines: begins where the restart before it ended, if that was near, and is left out elsewhere.
    """

    steps: int
    loss: LossName
    target: int | None
    schedule: StepSchedule
    width: float = 1.0
    refines: bool = False


def restarts_at(settings: SweepSettings, norm: Norm) -> list[Restart]:
    """The first restart, its restarts, and after each the refining of what came near."""
    schedule = SCHEDULES[norm]
    again = replace(schedule, dense=schedule.restart_dense)
    if settings.targets:
        restarts: list[tuple[LossName, int | None]] = [("margin", rank) for rank in range(settings.targets)]
    else:
        restarts = [(loss, None) for loss in settings.losses[1:]]
    starts = [Restart(settings.steps, settings.losses[0], None, schedule)]
    starts += [Restart(settings.steps, loss, rank, again, width=again.restart_width) for loss, rank in restarts]
    if not settings.refine:
        return starts
    small = replace(schedule, first=schedule.refine_first, dense=schedule.refine_dense)
    refining = Restart(settings.refine, "margin", None, small, refines=True)
    return [restart for start in starts for restart in (start, refining)]


class Timetables:
    """The restarts (A) as tensors, the rows of shorter ones filled up with their last value.

    Attributes:
        steps: (A,).
        sizes: (A, S + 1) step lengths over eps, the ball's width included.
        sparsities: (A, S + 1) shares of pixels that move, L1 only.
        widths: (A, S + 2) the ball's width over eps at the start and after each step.
        refines: (A,) bool.
    """

    def __init__(self, restarts: list[Restart], device: torch.device) -> None:
        longest = max(restart.steps for restart in restarts)
        widths = [torch.tensor(ball_widths(restart.width, restart.steps), device=device) for restart in restarts]
        sizes = [
            restart.schedule.step_sizes(restart.steps, device) * width[:-1]
            for restart, width in zip(restarts, widths, strict=True)
        ]
        sparsities = [restart.schedule.sparsities(restart.steps, device) for restart in restarts]
        self.steps = torch.tensor([restart.steps for restart in restarts], device=device)
        self.sizes, self.sparsities = _table(sizes, longest + 1), _table(sparsities, longest + 1)
        self.widths = _table(widths, longest + 2)
        self.refines = torch.tensor([restart.refines for restart in restarts], device=device)

    def next_restart(self, current: Tensor, near: Tensor) -> Tensor:
        """(N,) the restart that follows `current` (N,), where `near` (N,) is false without refining; A for none."""
        numbers = torch.arange(len(self.steps), device=current.device)
        possible = (numbers > current[:, None]) & (near[:, None] | ~self.refines)
        return torch.where(possible, numbers, len(numbers)).amin(1)


def _table(rows: list[Tensor], length: int) -> Tensor:
    return torch.stack([torch.cat([row, row[-1:].expand(length - len(row))]) for row in rows])
