from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.attacks.sweep.restarts import NEAR, SweepSettings, Timetables, restarts_at
from bench.attacks.sweep.schedules import SCHEDULES
from bench.attacks.sweep.sweep import NormSweep
from bench.attacks.verification import AttackResults
from bench.core.threat import NORMS, Norm

CPU = torch.device("cpu")


def test_restarts_are_the_losses_one_after_another_or_the_nearest_classes() -> None:
    by_loss = restarts_at(SweepSettings(8, ("margin", "cross_entropy")), "l2")
    assert [(restart.loss, restart.target, restart.width) for restart in by_loss] == [
        ("margin", None, 1.0),
        ("cross_entropy", None, 3.0),
    ]
    by_class = restarts_at(SweepSettings(8, ("cross_entropy", "margin"), targets=2), "l2")
    assert [(restart.loss, restart.target) for restart in by_class] == [
        ("cross_entropy", None),
        ("margin", 0),
        ("margin", 1),
    ]


def test_each_restart_is_followed_by_refining() -> None:
    restarts = restarts_at(SweepSettings(8, ("cross_entropy",), targets=2, refine=5), "l1")
    assert [restart.refines for restart in restarts] == [False, True] * 3
    assert [restart.steps for restart in restarts] == [8, 5] * 3
    assert all(restart.width == 1.0 for restart in restarts if restart.refines)


@pytest.mark.parametrize("norm", NORMS)
def test_timetables_of_shorter_restarts_stay_at_their_last_entry(norm: Norm) -> None:
    times = Timetables(restarts_at(SweepSettings(4, ("margin", "margin"), refine=9), norm), CPU)
    assert times.steps.tolist() == [4, 9, 4, 9]
    assert times.sizes.shape == times.sparsities.shape == (4, 10) and times.widths.shape == (4, 11)
    assert (times.sizes[0, 4:] == times.sizes[0, 4]).all()
    assert times.sizes[0, 0] == SCHEDULES[norm].first and times.sizes[1, 0] == SCHEDULES[norm].refine_first
    assert times.widths[2, 0] == SCHEDULES[norm].restart_width and (times.widths[2, 3:] == 1.0).all()


def test_what_is_not_near_skips_the_refining() -> None:
    times = Timetables(restarts_at(SweepSettings(4, ("margin", "margin"), refine=9), "l2"), CPU)
    current = torch.tensor([0, 0, 1, 1, 2, 2, 3])
    near = torch.tensor([True, False, True, False, True, False, True])
    assert times.next_restart(current, near).tolist() == [1, 2, 2, 2, 3, 4, 4]


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


def attack(model: Steep, refine: int, eps: float = 0.1) -> AttackResults:
    images, labels = torch.full((3, 1, 4, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    results = AttackResults.start(labels, labels)
    settings = SweepSettings(3, ("margin",), refine=refine)
    NormSweep(
        model,
        images,
        labels,
        torch.arange(3),
        norm="linf",
        radii=[eps],
        settings=settings,
        results=results,
        check_every=1,
    ).run()
    return results


def test_refining_begins_where_a_near_restart_ended_and_is_left_out_elsewhere() -> None:
    # the attack reaches a mean of 0.6; the clean margin is 0.5 - height
    near, far = Steep(0.61), Steep(0.9)
    assert abs(0.6 - near.height) < NEAR * abs(0.5 - near.height)
    assert abs(0.6 - far.height) > NEAR * abs(0.5 - far.height)
    attack(near, refine=5), attack(far, refine=5)
    clean, restart, refining = 1, 4, 6  # looks: at the clean images once, then one more than steps
    assert len(near.seen) == clean + restart + refining and len(far.seen) == clean + restart
    assert torch.equal(near.seen[clean + restart], near.seen[clean + restart - 1])


def test_without_refining_nothing_goes_on() -> None:
    near = Steep(0.61)
    attack(near, refine=0)
    assert len(near.seen) == 4


@pytest.mark.parametrize("norm", NORMS)
def test_refining_breaks_more(at_linf: nn.Module, fashion_images: tuple[Tensor, Tensor], norm: Norm) -> None:
    images, labels = fashion_images
    radii = {"linf": [0.15, 0.18, 0.2], "l2": [0.75, 1.0, 1.5], "l1": [5.0, 10.0, 15.0]}[norm]
    all_results = []
    for refine in (0, 20):
        results = AttackResults.start(at_linf(images).argmax(1), labels)
        settings = SweepSettings(3, ("cross_entropy",), patience=0, refine=refine)
        NormSweep(
            at_linf,
            images,
            labels,
            torch.arange(len(images)),
            norm=norm,
            radii=radii,
            settings=settings,
            results=results,
        ).run()
        all_results.append(torch.stack([results.broken(norm, eps) for eps in radii]))
    without, refined = all_results
    assert int(refined.sum()) > int(without.sum())


@pytest.mark.parametrize("norm", NORMS)
def test_batches_leave_every_refined_verdict(
    at_linf: nn.Module, fashion_images: tuple[Tensor, Tensor], norm: Norm
) -> None:
    images, labels = fashion_images[0][:16], fashion_images[1][:16]
    radii = {"linf": [0.1, 0.15], "l2": [1.0, 1.5], "l1": [10.0, 15.0]}[norm]
    verdicts = []
    for batch in (256, 7):
        results = AttackResults.start(at_linf(images).argmax(1), labels)
        settings = SweepSettings(5, ("cross_entropy",), targets=2, refine=5)
        NormSweep(
            at_linf, images, labels, torch.arange(24), norm=norm, radii=radii, settings=settings, results=results, batch_size=batch
        ).run()  # fmt: skip
        verdicts.append(torch.stack([results.broken(norm, eps) for eps in radii]))
    assert torch.equal(*verdicts)
