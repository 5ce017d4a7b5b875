from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.attacks.schedules import SCHEDULES
from bench.attacks.sweep.attempts import NEAR, SweepSettings, Timetables, attempts_at
from bench.attacks.sweep.sweep import NormSweep
from bench.attacks.verification import AttackResults
from bench.core.threat import NORMS, Norm

CPU = torch.device("cpu")


def test_attempts_are_the_losses_one_after_another_or_the_nearest_classes() -> None:
    by_loss = attempts_at(SweepSettings(8, ("margin", "cross_entropy")), "l2")
    assert [(attempt.loss, attempt.target, attempt.width) for attempt in by_loss] == [
        ("margin", None, 1.0),
        ("cross_entropy", None, 3.0),
    ]
    by_class = attempts_at(SweepSettings(8, ("cross_entropy", "margin"), targets=2), "l2")
    assert [(attempt.loss, attempt.target) for attempt in by_class] == [
        ("cross_entropy", None),
        ("margin", 0),
        ("margin", 1),
    ]


def test_each_attempt_is_followed_by_polishing() -> None:
    attempts = attempts_at(SweepSettings(8, ("cross_entropy",), targets=2, polish=5), "l1")
    assert [attempt.polishes for attempt in attempts] == [False, True] * 3
    assert [attempt.steps for attempt in attempts] == [8, 5] * 3
    assert all(attempt.width == 1.0 for attempt in attempts if attempt.polishes)


@pytest.mark.parametrize("norm", NORMS)
def test_timetables_of_shorter_attempts_stay_at_their_last_entry(norm: Norm) -> None:
    times = Timetables(attempts_at(SweepSettings(4, ("margin", "margin"), polish=9), norm), CPU)
    assert times.steps.tolist() == [4, 9, 4, 9]
    assert times.sizes.shape == times.sparsities.shape == (4, 10) and times.widths.shape == (4, 11)
    assert (times.sizes[0, 4:] == times.sizes[0, 4]).all()
    assert times.sizes[0, 0] == SCHEDULES[norm].first and times.sizes[1, 0] == SCHEDULES[norm].polish_first
    assert times.widths[2, 0] == SCHEDULES[norm].restart_width and (times.widths[2, 3:] == 1.0).all()


def test_what_is_not_near_skips_the_polishing() -> None:
    times = Timetables(attempts_at(SweepSettings(4, ("margin", "margin"), polish=9), "l2"), CPU)
    current = torch.tensor([0, 0, 1, 1, 2, 2, 3])
    near = torch.tensor([True, False, True, False, True, False, True])
    assert times.next_attempt(current, near).tolist() == [1, 2, 2, 2, 3, 4, 4]


class Steep(nn.Module):
    """Class 1 wins beyond `height` of the mean pixel; below, it comes as near as the mean does."""

    def __init__(self, height: float) -> None:
        super().__init__()
        self.height = height
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach().clone())
        mean = images.flatten(1).mean(1)
        return torch.stack([torch.full_like(mean, self.height), mean], 1)


def attack(model: Steep, polish: int, eps: float = 0.1) -> AttackResults:
    images, labels = torch.full((3, 1, 4, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    results = AttackResults.start(labels, labels)
    settings = SweepSettings(3, ("margin",), polish=polish)
    NormSweep(model, images, labels, torch.arange(3), "linf", [eps], settings, results, check_every=1).run()
    return results


def test_polishing_begins_where_a_near_attempt_ended_and_is_left_out_elsewhere() -> None:
    # the attack reaches a mean of 0.6; the clean margin is 0.5 - height
    near, far = Steep(0.61), Steep(0.9)
    assert abs(0.6 - near.height) < NEAR * abs(0.5 - near.height)
    assert abs(0.6 - far.height) > NEAR * abs(0.5 - far.height)
    attack(near, polish=5), attack(far, polish=5)
    clean, attempt, polishing = 1, 4, 6  # looks: at the clean images once, then one more than steps
    assert len(near.seen) == clean + attempt + polishing and len(far.seen) == clean + attempt
    assert torch.equal(near.seen[clean + attempt], near.seen[clean + attempt - 1])


def test_without_polishing_nothing_goes_on() -> None:
    near = Steep(0.61)
    attack(near, polish=0)
    assert len(near.seen) == 4


@pytest.mark.parametrize("norm", NORMS)
def test_polishing_breaks_more(at_linf: nn.Module, fashion_images: tuple[Tensor, Tensor], norm: Norm) -> None:
    images, labels = fashion_images
    radii = {"linf": [0.15, 0.18, 0.2], "l2": [0.75, 1.0, 1.5], "l1": [5.0, 10.0, 15.0]}[norm]
    all_results = []
    for polish in (0, 20):
        results = AttackResults.start(at_linf(images).argmax(1), labels)
        settings = SweepSettings(3, ("cross_entropy",), patience=0, polish=polish)
        NormSweep(at_linf, images, labels, torch.arange(len(images)), norm, radii, settings, results).run()
        all_results.append(torch.stack([results.broken(norm, eps) for eps in radii]))
    without, polished = all_results
    assert int(polished.sum()) > int(without.sum())


@pytest.mark.parametrize("norm", NORMS)
def test_batches_leave_every_polished_verdict(
    at_linf: nn.Module, fashion_images: tuple[Tensor, Tensor], norm: Norm
) -> None:
    images, labels = fashion_images[0][:16], fashion_images[1][:16]
    radii = {"linf": [0.1, 0.15], "l2": [1.0, 1.5], "l1": [10.0, 15.0]}[norm]
    verdicts = []
    for batch in (256, 7):
        results = AttackResults.start(at_linf(images).argmax(1), labels)
        settings = SweepSettings(5, ("cross_entropy",), targets=2, polish=5)
        NormSweep(
            at_linf, images, labels, torch.arange(24), norm, radii, settings, results, batch_size=batch
        ).run()  # fmt: skip
        verdicts.append(torch.stack([results.broken(norm, eps) for eps in radii]))
    assert torch.equal(*verdicts)
