"""The sweep's attempts at one radius, one after another: what a suite pins, and their timetables as tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.attacks.losses import LossName
from bench.attacks.schedules import SCHEDULES, StepSchedule, ball_widths
from bench.core.threat import Norm

NEAR = 0.3
"""Polishing is for what an attempt has brought down to this share of the clean image's margin."""


@dataclass(frozen=True, slots=True)
class SweepSettings:
    """What a suite pins of the sweep.

    Attributes:
        steps: gradient steps per example, radius and attempt.
        losses: one attempt for each loss, in this order.
        patience: how many radii in a row may withstand the attack before the smaller ones are taken as withstanding
            too (any point of a smaller ball lies in the larger one); 0 attacks every radius.
        targets: where not 0, the restarts attack so many classes one by one with the margin, the nearest to the clean
            image first, in place of the losses after the first.
        seed: keys the random starts, together with the example's id.
        polish: so many further steps, on the margin and small ones, from where an attempt has ended near the boundary;
            0 leaves it out. They break most of what a short attempt misses, for a small part of a long attempt's cost.
    """

    steps: int = 40
    losses: tuple[LossName, ...] = ("margin", "cross_entropy")
    patience: int = 1
    seed: int = 0
    targets: int = 0
    polish: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at one radius.

    Attributes:
        target: the rank of its target class among the wrong ones by the clean logits; None for no target.
        width: the ball's width over eps at the start.
        polishes: begins where the attempt before it ended, if that was near, and is left out elsewhere.
    """

    steps: int
    loss: LossName
    target: int | None
    schedule: StepSchedule
    width: float = 1.0
    polishes: bool = False


def attempts_at(settings: SweepSettings, norm: Norm) -> list[Attempt]:
    """The first attempt, its restarts, and after each the polishing of what came near."""
    schedule = SCHEDULES[norm]
    again = replace(schedule, dense=schedule.restart_dense)
    if settings.targets:
        restarts: list[tuple[LossName, int | None]] = [("margin", rank) for rank in range(settings.targets)]
    else:
        restarts = [(loss, None) for loss in settings.losses[1:]]
    starts = [Attempt(settings.steps, settings.losses[0], None, schedule)]
    starts += [Attempt(settings.steps, loss, rank, again, again.restart_width) for loss, rank in restarts]
    if not settings.polish:
        return starts
    small = replace(schedule, first=schedule.polish_first, dense=schedule.polish_dense)
    polishing = Attempt(settings.polish, "margin", None, small, polishes=True)
    return [attempt for start in starts for attempt in (start, polishing)]


class Timetables:
    """The attempts (A) as tensors, the rows of shorter ones filled up with their last value.

    Attributes:
        steps: (A,).
        sizes: (A, S + 1) step lengths over eps, the ball's width included.
        sparsities: (A, S + 1) shares of pixels that move, L1 only.
        widths: (A, S + 2) the ball's width over eps at the start and after each step.
        polishes: (A,) bool.
    """

    def __init__(self, attempts: list[Attempt], device: torch.device) -> None:
        longest = max(attempt.steps for attempt in attempts)
        widths = [torch.tensor(ball_widths(attempt.width, attempt.steps), device=device) for attempt in attempts]
        sizes = [
            attempt.schedule.step_sizes(attempt.steps, device) * width[:-1]
            for attempt, width in zip(attempts, widths, strict=True)
        ]
        sparsities = [attempt.schedule.sparsities(attempt.steps, device) for attempt in attempts]
        self.steps = torch.tensor([attempt.steps for attempt in attempts], device=device)
        self.sizes, self.sparsities = _table(sizes, longest + 1), _table(sparsities, longest + 1)
        self.widths = _table(widths, longest + 2)
        self.polishes = torch.tensor([attempt.polishes for attempt in attempts], device=device)

    def next_attempt(self, current: Tensor, near: Tensor) -> Tensor:
        """(N,) the attempt that follows `current` (N,), where `near` (N,) is false without polishing; A for none."""
        numbers = torch.arange(len(self.steps), device=current.device)
        possible = (numbers > current[:, None]) & (near[:, None] | ~self.polishes)
        return torch.where(possible, numbers, len(numbers)).amin(1)


def _table(rows: list[Tensor], length: int) -> Tensor:
    return torch.stack([torch.cat([row, row[-1:].expand(length - len(row))]) for row in rows])
