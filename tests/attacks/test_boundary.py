from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.attacks.boundary.few_pixels import FarGradients
from bench.attacks.boundary.search import Boundary, refine_found
from bench.attacks.boundary.swaps import exchanged
from bench.attacks.sigma_zero import without_needless
from bench.attacks.sweep.sweep import sweep
from bench.attacks.verification import AttackResults
from bench.core.threat import NORMS, Norm
from bench.data import ImageDataset
from tests.attacks.linear import Decoy, Thresholds, exact_radius, linear_problem

SETTINGS = Boundary(steps=150, targets=2, restarts=2)
FEW_STEPS = Boundary(steps=20, targets=2, restarts=2)


def refined(
    model: nn.Module, images: Tensor, labels: Tensor, start: Tensor, norm: Norm, *, batch_size: int = 256,
    settings: Boundary = SETTINGS,
) -> Tensor:  # fmt: skip
    """(N,) the distances after refining `start`, misclassified images."""
    results, ids = AttackResults.start(labels, labels, images), torch.arange(len(labels))
    far = torch.full((len(labels),), 1e4, dtype=torch.float64)
    assert results.judge(model, start, images, labels, eps=far, norm=norm, examples=ids).all()
    before = results.distances[norm].clone()
    refine_found(
        model, images, labels, ids, norm=norm, results=results, settings=settings, seed=0, batch_size=batch_size
    )
    assert (results.distances[norm] <= before).all()
    return results.distances[norm]


def opposite(model: nn.Module, images: Tensor) -> Tensor:
    """The corner of the box on the other side of a linear net with two classes."""
    label = model(images).argmax(1).view(-1, 1, 1, 1)
    side = (model.weight.view(1, *images.shape[1:]) > 0).float()  # type: ignore[operator,union-attr]
    return torch.where(label == 0, 1 - side, side)


@pytest.mark.parametrize("norm", NORMS)
def test_a_far_corner_comes_down_to_the_exact_distance_of_a_linear_net(norm: Norm) -> None:
    model, images, labels = linear_problem(20)
    found = refined(model, images, labels, opposite(model, images), norm)
    exact = exact_radius(model, images, labels, norm)
    assert (found >= exact * (1 - 1e-4)).all()  # logits of float32
    assert (found <= exact * 1.005).double().mean() >= 0.95


@pytest.mark.parametrize("norm", NORMS)
def test_no_image_depends_on_its_batch(norm: Norm, standard: nn.Module, fashion_test: ImageDataset) -> None:
    """Of a net with corners, where other random starts end elsewhere."""
    images, labels = fashion_test.pixels(slice(0, 40)), fashion_test.labels[:40]
    right = standard(images).argmax(1) == labels
    images, labels = images[right], labels[right]
    other = images[[int((labels != label).nonzero()[-1]) for label in labels[:4]]]
    whole, single = (
        refined(standard, images[:4], labels[:4], other, norm, batch_size=size, settings=FEW_STEPS) for size in (256, 1)
    )
    torch.testing.assert_close(whole, single, rtol=1e-3, atol=0)


def test_a_class_that_can_never_win_does_not_hold_the_search() -> None:
    images = torch.full((2, 1, 4, 4), 0.5)
    labels = torch.zeros(2, dtype=torch.int64)
    found = refined(Decoy(), images, labels, torch.ones_like(images), "linf")
    assert (found <= 0.15 * 1.005).all() and (found >= 0.15 * (1 - 1e-5)).all()


class TwoWays(nn.Module):
    """Class 0 in the dark; the left half bright by 0.1 makes class 1, the right half by 0.3 class 2."""

    def forward(self, images: Tensor) -> Tensor:
        left, right = images[:, 0, :, :2].mean((1, 2)), images[:, 0, :, 2:].mean((1, 2))
        return torch.stack([torch.zeros_like(left), left - 0.6, right - 0.8], 1)


@pytest.mark.parametrize("norm", NORMS)
def test_the_row_that_goes_on_is_the_one_with_the_shortest_way(norm: Norm) -> None:
    images, labels = torch.full((2, 1, 4, 4), 0.5), torch.zeros(2, dtype=torch.int64)
    far = images.clone()
    far[..., 2:] = 1.0
    settings = Boundary(steps=150, targets=1, restarts=1, kept=1)
    found = refined(TwoWays(), images, labels, far, norm, settings=settings)
    exact = {"linf": 0.1, "l2": 0.1 * 8**0.5, "l1": 0.8}[norm]
    assert (found <= exact * 1.005).all() and (found >= exact * (1 - 1e-5)).all()


def test_in_l1_a_pixel_counts_that_has_no_gradient_near_the_image() -> None:
    images, labels = torch.zeros(3, 1, 6, 6), torch.zeros(3, dtype=torch.int64)
    settings = Boundary(steps=50, targets=1, restarts=5)
    found = refined(Thresholds(), images, labels, torch.full_like(images, 0.5), "l1", settings=settings)
    exact = (1 + 3.0) / (10 + 1 / (36 * 0.2))  # of pixel 5 alone; of all alike it is 7.2
    assert (found <= exact * 1.005).all() and (found >= exact * (1 - 1e-5)).all()


class _TwoPixels(nn.Module):
    """Class 1 where pixel 5 is at 0.4 or pixel 9 at 0.35; below 0.3 neither counts nor has a gradient."""

    def forward(self, images: Tensor) -> Tensor:
        above = (images.flatten(1) - 0.3).clamp_min(0.0)
        return torch.stack([torch.ones(len(images)), 10 * above[:, 5] + 20 * above[:, 9]], 1)


def test_a_pixel_gives_way_to_one_that_gets_there_sooner_and_without_gradient() -> None:
    images, labels = torch.zeros(3, 1, 4, 4), torch.zeros(3, dtype=torch.int64)
    points = images.clone()
    points.flatten(1)[:, 5] = 0.41
    sums = torch.zeros(3, 1, 1, 4, 4)
    sums.flatten(1)[:, 5], sums.flatten(1)[:, 9] = 10.0, 20.0
    far = FarGradients(torch.ones(3, 1, dtype=torch.int64), sums)
    found = exchanged(_TwoPixels(), images, labels, points, far=far).flatten(1)
    assert (_TwoPixels()(found.view_as(images)).argmax(1) == 1).all()
    assert (found[:, 5] == 0).all() and (found[:, 9] < 0.37).all() and (found.count_nonzero(1) == 1).all()
    again = exchanged(_TwoPixels(), images, labels, found.view_as(images), far=far).flatten(1)
    assert (again[:, 9] <= found[:, 9]).all() and (again[:, 9] >= 0.35).all() and (again.count_nonzero(1) == 1).all()


def test_exchanges_are_asked_for_and_bring_nothing_further_away(
    standard: nn.Module, fashion_test: ImageDataset
) -> None:
    images, labels = fashion_test.pixels(slice(0, 8)), fashion_test.labels[:8]
    right = standard(images).argmax(1) == labels
    images, labels = images[right], labels[right]
    other = images[[int((labels != label).nonzero()[-1]) for label in labels]]
    settings = Boundary(steps=20, targets=1, restarts=2, swaps=2)
    without, found = (
        refined(standard, images, labels, other, "l1", settings=settings.model_copy(update={"swaps": swaps}))
        for swaps in (0, 2)
    )
    assert (found <= without).all() and (found < without).any()


def test_rows_that_do_not_go_on_cost_nothing_more() -> None:
    model, images, labels = linear_problem(3)
    results, far = AttackResults.start(labels, labels, images), torch.full((3,), 1e4, dtype=torch.float64)
    ids = torch.arange(3)
    results.judge(model, opposite(model, images), images, labels, eps=far, norm="l2", examples=ids)
    settings = Boundary(steps=20, targets=1, restarts=5, kept=2)
    refine_found(model, images, labels, ids, norm="l2", results=results, settings=settings, seed=0, batch_size=256)
    assert results.gradient_evaluations == 3 * (3 * 6 + 17 * 2)


def test_what_was_not_found_or_needs_nothing_is_left_alone() -> None:
    model, images, labels = linear_problem(3)
    wrong = labels.clone()
    wrong[0] = 1 - wrong[0]
    results = AttackResults.start(labels, wrong, images)
    refine_found(
        model, images, wrong, torch.arange(3), norm="l2", results=results, settings=SETTINGS, seed=0, batch_size=8
    )
    assert results.distances["l2"].tolist() == [0.0, torch.inf, torch.inf] and results.claims == 0


def test_needless_changes_are_taken_back_and_needed_ones_stay() -> None:
    model, images, labels = linear_problem(8)
    start = opposite(model, images)
    found = without_needless(model, images, labels, start, rounds=80)
    assert (model(found).argmax(1) != labels).all()
    changed = (found != images).flatten(1)
    assert (changed.sum(1) < 8).all()
    for pixel in range(changed.shape[1]):  # none of what is left can be taken back alone
        single = found.flatten(1).clone()
        single[:, pixel] = images.flatten(1)[:, pixel]
        still = model(single.view_as(images)).argmax(1) != labels
        assert not (still & changed[:, pixel]).any()


@pytest.mark.parametrize("norm", NORMS)
def test_the_point_found_alone_comes_down_too(norm: Norm) -> None:
    model, images, labels = linear_problem(10)
    found = refined(model, images, labels, opposite(model, images), norm, settings=Boundary(steps=150))
    assert (found <= exact_radius(model, images, labels, norm) * 1.005).double().mean() >= 0.9


def test_a_sweep_refines_in_the_norms_asked_for_what_stands_at_some_radius() -> None:
    model, images, labels = linear_problem(40)
    radius = float(exact_radius(model, images, labels, "l1").median())
    radii = torch.tensor([radius * 0.7, radius * 3])

    def swept(norm: Norm, boundary: Boundary | None) -> AttackResults:
        results = AttackResults.start(labels, labels)
        ids = torch.arange(len(labels))
        sweep(
            model, images, labels, norm=norm, ids=ids, radii=radii, results=results, steps=8, losses=("margin",),
            boundary=boundary,
        )  # fmt: skip
        return results

    plain, all_of_them = swept("l1", None), swept("l1", Boundary(steps=40, norms=("l1",)))
    some = swept("l1", Boundary(steps=40, norms=("l1",), standing=True))
    settled = plain.broken("l1", float(radii.min()))
    assert settled.any() and not settled.all()
    assert (some.distances["l1"][settled] == plain.distances["l1"][settled]).all()
    torch.testing.assert_close(some.distances["l1"][~settled], all_of_them.distances["l1"][~settled], rtol=1e-3, atol=0)
    assert (all_of_them.distances["l1"] < plain.distances["l1"]).double().mean() > 0.8
    costs = [one.gradient_evaluations for one in (plain, some, all_of_them)]
    assert costs[1] - costs[0] == 40 * int((~settled & plain.distances["l1"].isfinite()).sum()) < costs[2] - costs[0]
    assert swept("l2", Boundary(steps=40, norms=("l1",))).gradient_evaluations == swept("l2", None).gradient_evaluations
