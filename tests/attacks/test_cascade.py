from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from bench.attacks.cascade.attack import Cascade
from bench.attacks.cascade.stages import Stage
from bench.attacks.sweep.search import SearchNet
from bench.attacks.verification import AttackResults, verify
from bench.core.precision import Precision
from bench.core.threat import Norm
from bench.data import ImageDataset
from tests.attacks.linear import Decoy, Summing, linear_problem

STAGES = (Stage(steps=5), Stage(steps=10, targets=3), Stage(steps=20, targets=3, start=0.25, within=0.3))


def attack(
    model: nn.Module, images: Tensor, labels: Tensor, norm: Norm, eps: float, *,
    stages: tuple[Stage, ...] = STAGES, ids: Tensor | None = None, batch: int = 256, precision: Precision = "float32",
) -> AttackResults:  # fmt: skip
    with torch.no_grad():
        results = AttackResults.start(model(images).argmax(1), labels)
    ids = torch.arange(len(images)) if ids is None else ids
    Cascade(
        model, images, labels, ids, norm=norm, eps=eps, stages=stages, results=results, batch_size=batch,
        precision=precision,
    ).run()  # fmt: skip
    return results


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_exactly_the_breakable_images_of_a_linear_classifier_break(norm: Norm) -> None:
    model, images, labels = linear_problem(200)
    exact = model.exact_distance(images, norm)
    eps = float(exact.median())
    results = attack(model, images, labels, norm, eps=eps)
    broken = results.broken(norm, eps)
    assert not broken[exact > eps].any()
    assert broken[exact < 0.995 * eps].all()
    assert results.rejected <= 0.03 * results.claims, "at the boundary rounding decides, nowhere else"


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_verdicts_depend_neither_on_batches_nor_on_units(
    at_linf: nn.Module, fashion_test: ImageDataset, norm: Norm
) -> None:
    eps = {"linf": 0.1, "l2": 1.5, "l1": 15.0}[norm]
    images, labels = fashion_test.pixels(slice(0, 14)), fashion_test.labels[:14]
    whole = attack(at_linf, images, labels, norm, eps=eps).broken(norm, eps)
    small = attack(at_linf, images, labels, norm, eps=eps, batch=7).broken(norm, eps)
    halves = [
        attack(at_linf, images[part], labels[part], norm, eps=eps, ids=torch.arange(14)[part]).broken(norm, eps)
        for part in (slice(0, 5), slice(5, 14))
    ]
    assert torch.equal(whole, small)
    assert torch.equal(whole, torch.cat(halves))
    assert whole.any() and not whole.all()


def test_later_stages_only_add_breaks_and_cost_nothing_when_all_is_broken(
    standard: nn.Module, fashion_test: ImageDataset
) -> None:
    images, labels = fashion_test.pixels(slice(0, 40)), fashion_test.labels[:40]
    one = attack(standard, images, labels, "linf", eps=0.02, stages=STAGES[:1])
    more = attack(standard, images, labels, "linf", eps=0.02)
    assert (more.broken("linf", 0.02) | ~one.broken("linf", 0.02)).all()
    weak = attack(standard, images, labels, "linf", eps=0.3, stages=STAGES[:1])
    assert weak.broken("linf", 0.3).all()
    assert attack(standard, images, labels, "linf", eps=0.3).gradient_evaluations == weak.gradient_evaluations


def attack_decoy(*stages: Stage) -> Tensor:
    images, labels = torch.full((4, 1, 4, 4), 0.5), torch.zeros(4, dtype=torch.int64)
    return attack(Decoy(), images, labels, "linf", eps=0.2, stages=stages).broken("linf", 0.2)


def test_targeted_stages_break_what_the_untargeted_margin_cannot() -> None:
    assert not attack_decoy(Stage(steps=10, start=0.0)).any()
    assert attack_decoy(Stage(steps=10, targets=2, start=0.0)).all()


def test_an_example_that_came_near_is_attacked_towards_all_its_classes() -> None:
    first, then = Stage(steps=10, start=0.0), Stage(steps=10, targets=2, start=0.0, within=0.15)
    assert not attack_decoy(first, then).any()
    assert attack_decoy(first, then.model_copy(update={"gate": "example"})).all()
    assert not attack_decoy(first, then.model_copy(update={"gate": "example", "within": 0.05})).any()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_net_that_first_sums_the_image_is_attacked(norm: Norm) -> None:
    images, labels = torch.full((3, 1, 3, 3), 0.4), torch.zeros(3, dtype=torch.int64)
    assert attack(Summing(), images, labels, norm, eps=9.0).broken(norm, 9.0).all()


def test_a_stage_of_other_norms_is_left_out(standard: nn.Module, fashion_test: ImageDataset) -> None:
    images, labels = fashion_test.pixels(slice(0, 10)), fashion_test.labels[:10]
    l1_only = (Stage(steps=5, norms=("l1",)),)
    assert attack(standard, images, labels, "linf", eps=0.1, stages=l1_only).gradient_evaluations == 0
    assert attack(standard, images, labels, "l1", eps=15.0, stages=l1_only).gradient_evaluations > 0


def test_refining_begins_where_the_best_attack_on_the_example_ended() -> None:
    """Watch the points that the net is asked about; the second of two stages ends the nearer to the boundary."""
    images, labels = torch.full((3, 1, 4, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    seen: list[Tensor] = []

    class Unbreakable(nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            seen.append(points.detach().clone())
            score = points.flatten(1).mean(1)
            return torch.stack([torch.full_like(score, 9.0), score], 1)

    weak, tiny = Stage(steps=1, start=0.0, first=0.1), Stage(steps=1, refine=True, first=1e-6)
    attack(Unbreakable(), images, labels, "l2", eps=0.3, stages=(weak, Stage(steps=6), tiny))
    # the clean pass, steps + 1 points a stage, and another clean pass before the first stage that chooses
    first, second, refined = seen[1:3], seen[3:10], seen[10:]
    assert second[-1].mean() > first[-1].mean()
    assert len(refined) == 2
    assert torch.equal(refined[0], second[-1])
    assert torch.allclose(refined[1], second[-1], atol=1e-5)
    seen.clear()
    attack(Unbreakable(), images, labels, "l2", eps=0.3, stages=(Stage(steps=6), weak, tiny))
    assert torch.equal(seen[-2], seen[1 + 6])


@pytest.mark.parametrize(("last", "batches"), [(0.75, 0), (0.97, 1)])
def test_only_batches_in_which_an_image_outlives_the_first_stage_are_looked_at_again(last: float, batches: int) -> None:
    """Images brighter than 0.6 are of class 0: 0.75 breaks at 0.3, and 0.97 stands."""
    images = torch.tensor([0.65, 0.65, 0.65, last]).view(4, 1, 1, 1).expand(4, 1, 3, 3).contiguous()
    labels, clean = torch.zeros(4, dtype=torch.int64), []

    class Bright(nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            clean.append(bool((points[:1] == images).flatten(1).all(1).any()))
            score = points.flatten(1).mean(1) - 0.6
            return torch.stack([score, torch.zeros_like(score), -torch.ones_like(score)], 1)

    found = attack(Bright(), images, labels, "linf", eps=0.3, batch=2).broken("linf", 0.3)
    assert found.tolist() == [True, True, True, batches == 0]
    assert sum(clean) == 1 + batches


def test_refining_breaks_more_in_l1_for_little(standard: nn.Module, fashion_test: ImageDataset) -> None:
    images, labels = fashion_test.pixels(slice(0, 100)), fashion_test.labels[:100]
    coarse = Stage(steps=12)
    refine = Stage(steps=20, within=0.5, dense=0.03, first=0.5, refine=True)
    rough = attack(standard, images, labels, "l1", eps=5.0, stages=(coarse,))
    fine = attack(standard, images, labels, "l1", eps=5.0, stages=(coarse, refine))
    assert (fine.broken("l1", 5.0) >= rough.broken("l1", 5.0)).all()
    assert fine.broken("l1", 5.0).sum() > rough.broken("l1", 5.0).sum()


def test_few_pixels_move_at_first_in_l1_where_a_stage_says_so(standard: nn.Module, fashion_test: ImageDataset) -> None:
    images, labels = fashion_test.pixels(slice(0, 30)), fashion_test.labels[:30]
    found = [
        attack(standard, images, labels, norm, eps=eps, stages=(Stage(steps=8, start=0.0, dense=dense),)).distances[
            norm
        ]
        for norm, eps in (("l1", 15.0), ("linf", 0.03))
        for dense in (1.0, 0.1)
    ]
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found[2], found[3])


def test_nan_gradients_are_counted_and_do_not_end_the_attack() -> None:
    model, images, labels = linear_problem(20)

    class Poisoned(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = model(images)
            return logits + 0.0 * (images[:, :, :1] * 0.0).sqrt().sum((1, 2, 3))[:, None]

    eps = float(model.exact_distance(images, "linf").max())
    results = attack(Poisoned(), images, labels, "linf", eps=eps * 2)
    assert results.bad_gradients > 0
    assert results.broken("linf", eps * 2).any()


def test_adversarial_predictions_are_never_the_label(at_linf: nn.Module, fashion_test: ImageDataset) -> None:
    images, labels = fashion_test.pixels(slice(0, 16)), fashion_test.labels[:16]
    results = attack(at_linf, images, labels, "l2", eps=1.5)
    broken = results.broken("l2", 1.5)
    assert (results.predictions["l2"][broken] != labels[broken]).all()
    clean, _, _ = verify(at_linf, images, images, labels, eps=torch.full((16,), 1.5), norm="l2")
    assert torch.equal(clean, results.distances["l2"] == 0)


class Dark(nn.Module):
    """Class 1 where the pixels are on average over 0.1 away from grey; nearer than that no gradient tells of it."""

    def forward(self, images: Tensor) -> Tensor:
        away = torch.relu((images - 0.5).abs().flatten(1).mean(1) - 0.15)
        return torch.stack([torch.full_like(away, 0.01), away], 1)


def test_a_start_at_a_corner_breaks_what_no_gradient_within_the_ball_shows() -> None:
    images, labels = torch.full((4, 1, 8, 8), 0.5), torch.zeros(4, dtype=torch.int64)
    for cells, broken in ((0, 0), (4, 4)):
        stages = (Stage(steps=4, cells=cells, norms=("linf",)),)
        assert int(attack(Dark(), images, labels, "linf", eps=0.2, stages=stages).broken("linf", 0.2).sum()) == broken


def test_corners_are_the_same_all_over_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = torch.full((3, 1, 8, 8), 0.5), torch.zeros(3, dtype=torch.int64)
    cascade = Cascade(
        Dark(), images, labels, torch.arange(3), norm="linf", eps=0.2, stages=(), results=AttackResults.start(labels, labels)
    )  # fmt: skip
    stage, targets = Stage(steps=1, cells=4, norms=("linf",)), torch.full((3,), -1)
    begin = cascade._start(0, stage, torch.arange(3), targets, clean=images)
    assert torch.allclose((begin - 0.5).abs(), torch.tensor(0.2))
    blocks = begin.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
    assert torch.equal(blocks.amax(-1), blocks.amin(-1)) and len(torch.unique(begin)) == 2
    assert not torch.equal(begin[0], begin[1])


class Stairs(nn.Module):
    """Class 1 where three quarters of the pixels are bright; no gradient says so."""

    def forward(self, images: Tensor) -> Tensor:
        bright = (images > 0.6).float().flatten(1).mean(1) + 0.0 * images.flatten(1).sum(1)
        return torch.stack([torch.full_like(bright, 0.74), bright], 1)


def test_queries_break_what_gradients_do_not_and_are_counted() -> None:
    images, labels = torch.full((4, 1, 6, 6), 0.5), torch.zeros(4, dtype=torch.int64)
    walk = Stage(steps=1, refine=True, queries=400, norms=("linf",))
    blind = attack(Stairs(), images, labels, "linf", eps=0.2, stages=(Stage(steps=20),))
    assert not blind.broken("linf", 0.2).any() and blind.queries == 0
    found = attack(Stairs(), images, labels, "linf", eps=0.2, stages=(Stage(steps=20), walk))
    assert found.broken("linf", 0.2).all() and found.rejected == 0
    assert 0 < found.queries <= 4 * 401
    assert found.gradient_evaluations == blind.gradient_evaluations, "what the search breaks takes no gradient more"


def test_the_verdicts_of_starts_at_corners_and_queries_depend_on_no_batch(
    at_linf: nn.Module, fashion_test: ImageDataset
) -> None:
    images, labels, ids = fashion_test.pixels(slice(0, 8)), fashion_test.labels[:8], torch.arange(8)
    stages = (Stage(steps=3, cells=7, norms=("linf",)), Stage(steps=3, refine=True, queries=40, norms=("linf",)))
    whole = attack(at_linf, images, labels, "linf", eps=0.12, stages=stages).distances["linf"]
    small = attack(at_linf, images, labels, "linf", eps=0.12, stages=stages, batch=5).distances["linf"]
    parts = [slice(0, 3), slice(3, 8)]
    units = [attack(at_linf, images[i], labels[i], "linf", eps=0.12, stages=stages, ids=ids[i]) for i in parts]
    assert torch.equal(whole.isfinite(), small.isfinite())
    assert torch.equal(whole.isfinite(), torch.cat([unit.distances["linf"] for unit in units]).isfinite())
    assert whole.isfinite().any() and not whole.isfinite().all()


@pytest.mark.parametrize("wrong", [{"cells": 4}, {"queries": 9, "refine": True}, {"queries": 9, "norms": ("linf",)}])
def test_corners_and_queries_are_for_linf_and_queries_for_refining(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="cells and queries take"):
        Stage(steps=1, **wrong)


def test_what_came_near_is_searched_in_float32_in_any_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images, labels = linear_problem(12)
    seen: list[str] = []
    call = SearchNet.__call__

    def told(net: SearchNet, given: Tensor) -> Tensor:
        seen.append(net.precision)
        return call(net, given)

    monkeypatch.setattr(SearchNet, "__call__", told)
    eps = 0.5 * float(model.exact_distance(images, "l2").min())
    stages = (Stage(steps=1), Stage(steps=1, within=0.99), Stage(steps=1, refine=True))
    attack(model, images, labels, "l2", eps=eps, stages=stages, precision="bfloat16")
    assert seen == ["bfloat16", "bfloat16", "float32", "float32", "float32", "float32"]


@pytest.mark.parametrize(
    "near", [Stage(steps=2, within=0.01), Stage(steps=2, within=0.01, refine=True, queries=9, norms=("linf",))]
)
def test_a_stage_that_nothing_came_near_to_is_passed_over(near: Stage) -> None:
    """Most units of a net that loses everything, or nearly, are such."""
    images, labels = torch.full((4, 1, 6, 6), 0.5), torch.zeros(4, dtype=torch.int64)
    stage = near.model_copy(update={"norms": ("linf",)})
    found = attack(Stairs(), images, labels, "linf", eps=0.01, stages=(Stage(steps=2), stage))
    assert not found.broken("linf", 0.01).any() and found.queries == 0 and found.gradient_evaluations == 4 * 3


@pytest.mark.parametrize("instead", [{"refine": True}, {"start": 0.0}])
def test_cells_without_a_random_start_are_refused(instead: dict[str, Any]) -> None:
    """They did nothing."""
    with pytest.raises(ValidationError, match="cells are where a random start begins"):
        Stage(steps=5, cells=7, norms=("linf",), **instead)
