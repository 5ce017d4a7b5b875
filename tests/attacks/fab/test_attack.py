from __future__ import annotations

import pytest
import torch
from pyautoattack import fab_projections
from pyautoattack.fab_pt import FABAttack_PT
from torch import Tensor, nn

from bench.attacks.fab import attack as fab
from bench.attacks.fab.attack import fab_targeted
from bench.attacks.fab.hyperplanes import towards_hyperplane
from bench.attacks.norms import distance
from bench.core.threat import NORMS, Norm
from bench.data import ImageDataset
from tests.attacks.linear import exact_radius, linear_problem

NAMES: dict[Norm, str] = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def hyperplanes(scale: float) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(2, 20, 300, generator=generator) * (torch.rand(2, 20, 300, generator=generator) > 0.4)
    normal = torch.randn(20, 300, generator=generator)
    normal[:, ::7] = 0.0
    normal[-1] = 0.0
    offset = (points[0] * normal).sum(-1) + scale * torch.randn(20, generator=generator)
    return points, normal, (points * normal).sum(-1) - offset


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_moves_onto_hyperplanes_are_those_of_the_original(norm: Norm, scale: float) -> None:
    points, normal, excess = hyperplanes(scale)
    moves = towards_hyperplane(points, normal, excess, norm)
    original = {
        "linf": fab_projections.projection_linf, "l2": fab_projections.projection_l2, "l1": fab_projections.projection_l1,
    }[norm]  # fmt: skip
    assert torch.isfinite(moves).all()
    assert ((points + moves).clamp(0, 1) - (points + moves)).abs().max() < 1e-6
    reached = (moves * normal).sum(-1) + excess
    for part in range(2):
        theirs = original(points[part], normal, (points[part] * normal).sum(-1) - excess[part])
        left = (theirs * normal).sum(-1) + excess[part]
        # as near to the hyperplane and no longer
        assert (reached[part].abs() <= left.abs() + 1e-3 * max(scale, 1.0)).all()
        solvable = left.abs() < 1e-3
        assert solvable.any()
        assert torch.allclose(
            distance(moves[part], norm)[solvable], distance(theirs, norm)[solvable], rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize(
    ("norm", "eps"),
    [("linf", 0.02), pytest.param("l2", 0.4, marks=pytest.mark.slow), pytest.param("l1", 3.0, marks=pytest.mark.slow)],
)
def test_fab_alone_breaks_what_the_original_breaks(
    norm: Norm, eps: float, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    images, labels = fashion_test.pixels(slice(0, 10)), fashion_test.labels[:10]
    right = standard(images).argmax(1) == labels
    images, labels = images[right], labels[right]
    original = FABAttack_PT(standard, norm=NAMES[norm], n_iter=20, eps=eps, seed=0, targeted=True, device="cpu")
    theirs = standard(original.perturb(images, labels)).argmax(1) != labels
    radii = torch.full((len(images),), eps, dtype=torch.float64)
    found = fab_targeted(standard, images, labels, norm=norm, eps=radii, iterations=20, batch_size=64).images
    ours = standard(found).argmax(1) != labels
    assert 0.1 < theirs.float().mean() < 0.9
    # FAB has no chance in it: the two differ by rounding only
    assert int((theirs & ~ours).sum()) <= 1
    assert (distance(found - images, norm) <= eps * (1 + 1e-5)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_linear_net_breaks_just_above_its_exact_distance_and_not_below(norm: Norm) -> None:
    """Of ten classes, whose nearest is not always the one with the next logit."""
    torch.manual_seed(0)
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(36, 10)).requires_grad_(False), torch.rand(40, 1, 6, 6)
    model[1].weight.mul_(torch.linspace(0.2, 3.0, 10)[:, None])
    labels = model(images).argmax(1)
    exact = exact_radius(model, images, labels, norm)
    for share, breaks in ((1.01, True), (0.99, False)):
        found = fab_targeted(model, images, labels, norm=norm, eps=share * exact, iterations=20).images
        assert ((model(found).argmax(1) != labels) == breaks).all()


def test_pairs_that_have_settled_out_of_reach_take_no_more_gradients() -> None:
    """Of a linear net half the images are, and FAB is there at once."""
    model, images, labels = linear_problem(20)
    radii = model.exact_distance(images, "linf").median().double().expand(20)
    found, gradients = [], []
    for patient in (True, False):
        counted = Counted(model)
        result = fab_targeted(counted, images, labels, norm="linf", eps=radii, iterations=60, patient=patient)
        found.append(result.images)
        gradients.append(counted.gradients)
    assert torch.equal(found[0] != images, found[1] != images) and (found[0] != images).any()
    assert gradients[1] < 0.9 * gradients[0]


class Counted(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.gradients = model, 0

    def forward(self, images: Tensor) -> Tensor:
        self.gradients += len(images) if images.requires_grad else 0
        return self.model(images)


def test_a_pair_is_given_up_only_near_the_radius_and_when_it_came_no_nearer() -> None:
    blank, whole = torch.zeros(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64)
    ones = torch.ones(4, dtype=torch.float64)
    search = fab._Search(
        nn.Identity(), blank, whole, whole, examples=torch.arange(4), norm="l2", eps=ones, patient=False, found=blank,
        nearest=torch.ones(4),
    )  # fmt: skip
    search.reached = torch.full((21, 4), torch.inf)
    # settled at 2; still coming nearer; far away, as nets with flat surroundings hold FAB; never misclassified by half
    search.reached[10:] = torch.tensor([2.0, 3.0, 9.0, torch.inf])
    search.reached[20:] = torch.tensor([2.0, 2.0, 9.0, 2.0])
    assert search._out_of_reach(20).tolist() == [True, False, False, False]
