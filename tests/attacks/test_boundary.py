from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.attacks.boundary import Boundary, refine_found
from bench.attacks.sigma_zero import without_needless
from bench.attacks.verification import AttackResults
from bench.core.threat import NORMS, Norm
from bench.data import ImageDataset
from tests.attacks.linear import Decoy, exact_radius, linear_problem

SETTINGS = Boundary(steps=100, targets=2, restarts=2)
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
    assert (found >= exact * (1 - 1e-5)).all()
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
