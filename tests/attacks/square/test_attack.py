from __future__ import annotations

from typing import Any

import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from bench.attacks.norms import distance
from bench.attacks.square import corners as square_corners
from bench.attacks.square.attack import square, walk, window_pattern, window_side
from bench.attacks.square.early_stopping import EarlyStopping
from bench.core.threat import NORMS, Norm
from bench.data import ImageDataset

NAMES: dict[Norm, str] = {"linf": "Linf", "l2": "L2", "l1": "L1"}


class Recorder(nn.Module):
    """A small net in float64, so that it says the same of an image in any batch; keeps what it was asked."""

    def __init__(self, shape: tuple[int, int, int], classes: int = 4) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(classes)
        pixels = shape[0] * shape[1] * shape[2]
        self.first = torch.randn(pixels, 16, generator=generator, dtype=torch.float64) / pixels**0.5
        self.second = torch.randn(16, classes, generator=generator, dtype=torch.float64)
        self.images = 0

    def forward(self, images: Tensor) -> Tensor:
        self.images += len(images)
        return ((images.flatten(1).double() - 0.5) @ self.first).tanh() @ self.second


def problem(shape: tuple[int, int, int], count: int = 12) -> tuple[Recorder, Tensor, Tensor]:
    model, images = Recorder(shape), torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))
    labels = model(images).argmax(1)
    model.images = 0
    return model, images, labels


def attack(model: nn.Module, images: Tensor, labels: Tensor, norm: Norm, eps: float, queries: int) -> Tensor:
    radii = torch.full((len(images),), eps, dtype=torch.float64)
    found = square(model, images, labels, norm=norm, eps=radii, ids=torch.arange(len(images)), queries=queries).images
    assert found is not None
    return found


@pytest.mark.parametrize("shape", [(1, 9, 9), (3, 8, 8)])
def test_corners_seen_before_and_several_at_once_change_nothing_but_the_work(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int]
) -> None:
    model, images, labels = problem(shape)
    quick = attack(model, images, labels, "linf", eps=0.05, queries=600)
    images_quick, model.images = model.images, 0
    monkeypatch.setattr(square_corners, "_MOST_AT_ONCE", 1)
    monkeypatch.setattr(square_corners._SeenCorners, "start", lambda *_: None)
    slow = attack(model, images, labels, "linf", eps=0.05, queries=600)
    assert torch.equal(quick, slow)
    assert images_quick < model.images


@pytest.mark.parametrize("norm", NORMS)
def test_no_example_depends_on_its_neighbours(norm: Norm) -> None:
    model, images, labels = problem((1, 10, 10))
    eps = {"linf": 0.05, "l2": 0.3, "l1": 1.5}[norm] * torch.linspace(0.5, 1.5, len(images), dtype=torch.float64)
    ids, some = torch.arange(len(images)), slice(3, 7)
    whole = square(model, images, labels, norm=norm, eps=eps, ids=ids, queries=80)
    part = square(
        model, images[some], labels[some], norm=norm, eps=eps[some], ids=ids[some], queries=80, batch_size=3
    )  # fmt: skip
    # how many proposals are tried between two looks depends on the neighbours; a broken example is left where it is
    assert torch.allclose(whole.images[some], part.images, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 14, 14), (3, 7, 18), (1, 30, 4)])
def test_what_is_found_is_inside_the_ball_and_the_box(norm: Norm, shape: tuple[int, int, int]) -> None:
    model, images, labels = problem(shape, 3)
    eps = {"linf": 0.1, "l2": 0.5, "l1": 2.0}[norm]
    found = attack(model, images, labels, norm, eps=eps, queries=40)
    assert found.isfinite().all() and (found >= 0).all() and (found <= 1).all()
    assert (distance(found - images, norm) <= eps * (1 + 1e-5)).all()


@pytest.mark.parametrize(("norm", "side"), [("l2", 5), ("l2", 8), ("l1", 7)])
def test_windows_and_their_schedule_are_those_of_the_original(norm: Norm, side: int) -> None:
    original = SquareAttack(nn.Identity(), norm=NAMES[norm], n_queries=5000, eps=1.0, resc_schedule=False)
    original.device = torch.device("cpu")
    torch.manual_seed(0)
    theirs = original.eta(side)
    ours = window_pattern(side, norm, torch.device("cpu"))
    assert torch.allclose(theirs, ours, atol=1e-6) or torch.allclose(theirs, ours.T, atol=1e-6)
    images = torch.zeros(1, 1, 28, 28)
    for query in (0, 10, 11, 50, 51, 500, 501, 1000, 2000, 2001, 4001, 4999):
        expected = max(round((original.p_selection(query) * 784) ** 0.5), 3)
        assert window_side(query, images, 3) == min(expected + (expected % 2 == 0), 28)


@pytest.mark.parametrize(
    ("norm", "eps"), [("linf", 0.04), pytest.param("l2", 0.8, marks=pytest.mark.slow), ("l1", 6.0)]
)
def test_square_alone_breaks_as_much_as_the_original(
    norm: Norm, eps: float, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    images, labels = fashion_test.pixels(slice(0, 40)), fashion_test.labels[:40]
    right = standard(images).argmax(1) == labels
    images, labels = images[right], labels[right]
    original = SquareAttack(standard, norm=NAMES[norm], n_queries=200, eps=eps, seed=0, resc_schedule=False)
    with torch.no_grad():
        theirs = standard(original.perturb(images, labels)).argmax(1) != labels
        ours = standard(attack(standard, images, labels, norm, eps=eps, queries=200)).argmax(1) != labels
    assert 0.1 < theirs.float().mean() < 0.9
    # two runs of the original differ by as much
    assert int(ours.sum()) >= int(theirs.sum()) - 3


def prospects(half: float, now: float, improved: int) -> bool:
    margins = torch.full((1,), half)
    record = EarlyStopping.start(margins, 5000)
    assert record is not None
    for query, margin, taken in ((500, half, 5), (1000, now, 5 + improved)):
        record.note(torch.tensor([query]), torch.full((1,), margin), torch.tensor([taken]))
    return bool(record.should_stop())


def test_only_a_lively_search_that_falls_too_slowly_is_given_up() -> None:
    # 2.3 octaves are left after query 1000, so that four times a fall of 0.1 an octave is 0.93
    assert prospects(1.1, 1.0, improved=30)
    assert not prospects(1.0, 0.9, improved=30)
    assert not prospects(1.0, 1.0, improved=0), "a flat search says nothing"
    assert EarlyStopping.start(torch.ones(1), 1000) is None


def test_a_patient_search_spends_all_its_queries() -> None:
    model, images, labels = problem((1, 12, 12), 3)
    spent = []
    for patient in (True, False):
        model.images = 0
        radii = torch.full((3,), 0.01, dtype=torch.float64)
        square(model, images, labels, norm="l2", eps=radii, ids=torch.arange(3), queries=2000, patient=patient)
        spent.append(model.images)
    assert spent[0] >= 2 * 2001 > 1.2 * spent[1]


def test_a_walk_begins_at_the_corners_nearest_to_a_point_of_the_ball_and_counts_what_it_asks() -> None:
    model, images, labels = problem((1, 6, 6), count=4)
    begin = (images + 0.1 * torch.rand(images.shape, generator=torch.Generator().manual_seed(2)) - 0.05).clamp(0.0, 1.0)
    corners = torch.where(begin > images, (images + 0.05).clamp_max(1.0), (images - 0.05).clamp_min(0.0))

    class Even(nn.Module):
        """What is no better is not taken."""

        def forward(self, images: Tensor) -> Tensor:
            logits = torch.zeros(len(images), 4, dtype=torch.float64)
            logits[:, 0] = 1.0
            return logits

    keyed: dict[str, Any] = {"eps": torch.full((4,), 0.05), "ids": torch.arange(4), "seed": 0, "batch_size": 3}
    stayed, _ = walk(Even(), images, torch.zeros(4, dtype=torch.int64), begin, queries=20, **keyed)
    assert torch.allclose(stayed, corners, atol=1e-7)
    found, asked = walk(model, images, labels, begin, queries=200, **keyed)
    assert asked == model.images > 4
    rows = torch.arange(4)
    before, after = (model(image) for image in (corners, found))
    gains = [(said.scatter(1, labels[:, None], -torch.inf).amax(1) - said[rows, labels]) for said in (before, after)]
    assert (gains[1] >= gains[0]).all() and (gains[1] > gains[0]).any()
