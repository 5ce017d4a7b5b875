from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.attacks.losses import LOSSES, LossName
from bench.attacks.norms import distance
from bench.attacks.pgd import attacked_model, pgd, pgd_with_restarts
from bench.core.threat import NORMS, Norm
from tests.attacks.linear import linear_problem


@pytest.mark.parametrize("train_mode", [False, True])
def test_every_modules_mode_and_every_parameters_gradient_are_put_back_also_after_an_error(train_mode: bool) -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(), nn.Sequential(nn.Linear(2, 2)))
    net.train()
    net[1].eval()
    net[3].eval()
    net[3][0].train()
    net[0].requires_grad_(False)

    def condition() -> list[object]:
        return [*(one.training for one in net.modules()), *(one.requires_grad for one in net.parameters())]

    before = condition()
    with pytest.raises(ValueError, match="no"), attacked_model(net, train_mode=train_mode):
        assert {one.training for one in net.modules()} == {train_mode}
        assert not any(one.requires_grad for one in net.parameters())
        raise ValueError("no")
    assert condition() == before


def radii(images: Tensor, eps: float) -> Tensor:
    return torch.full((len(images),), eps, dtype=torch.float64)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", LOSSES)
def test_on_a_linear_net_pgd_breaks_exactly_what_can_be_broken(norm: Norm, loss: LossName) -> None:
    model, images, labels = linear_problem(40)
    exact = model.exact_distance(images, norm)
    eps = float(exact.median()) * 1.0001
    found = pgd_with_restarts(model, images, labels, norm=norm, eps=radii(images, eps), ids=labels, steps=60, loss=loss)
    assert found.images is not None
    assert (distance(found.images - images, norm) <= eps * (1 + 1e-5)).all()
    broken = model(found.images).argmax(1) != labels
    assert not broken[exact > eps * 1.001].any() and broken[exact < 0.97 * eps].all()


@pytest.mark.parametrize("norm", NORMS)
def test_one_step_without_a_random_start_is_the_steepest_of_its_length(norm: Norm) -> None:
    model, images, labels = linear_problem(8)
    found = pgd(model, images, labels, norm=norm, eps=0.01, steps=1, step_size=0.01, loss="margin") - images
    uphill = model.weight * torch.where(labels == 0, -1.0, 1.0)[:, None]
    torch.testing.assert_close(distance(found, norm), torch.full((8,), 0.01))
    gained = (found.flatten(1) * uphill).sum(1)
    dual = {"linf": uphill.abs().sum(1), "l2": uphill.norm(dim=1)}
    if norm == "l1":  # a twentieth of the pixels move: one of 36
        assert torch.equal((found != 0).flatten(1).sum(1), torch.ones(8, dtype=torch.int64))
        torch.testing.assert_close(gained, 0.01 * uphill.abs().amax(1))
    else:
        torch.testing.assert_close(gained, 0.01 * dual[norm], rtol=1e-4, atol=1e-6)


def test_each_example_has_its_own_radius_and_step() -> None:
    model, images, labels = linear_problem(6)
    eps = torch.linspace(0.001, 0.006, 6)
    found = pgd(model, images, labels, norm="linf", eps=eps, steps=5, step_size=eps)
    torch.testing.assert_close(distance(found - images, "linf"), eps, rtol=1e-4, atol=1e-6)
    alone = pgd(model, images[3:4], labels[3:4], norm="linf", eps=0.004, steps=5, step_size=0.004)
    torch.testing.assert_close(found[3:4], alone)


def test_restarts_go_on_where_the_first_start_failed_and_keep_what_it_found() -> None:
    """A plateau around the image hides the boundary from all starts but a few."""

    class Plateau(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            score = torch.relu(images.flatten(1).mean(1) - 0.512) - 0.001
            return torch.stack([torch.zeros_like(score), score], 1)

    images, labels = torch.full((40, 1, 4, 4), 0.5), torch.zeros(40, dtype=torch.int64)
    broken = []
    for restarts in (1, 6):
        found = pgd_with_restarts(
            Plateau(), images, labels, norm="linf", eps=radii(images, 0.05), ids=torch.arange(40), steps=5,
            restarts=restarts, batch_size=7,
        ).images  # fmt: skip
        assert found is not None
        broken.append(Plateau()(found).argmax(1) == 1)
    assert 0 < int(broken[0].sum()) < int(broken[1].sum()) and bool(broken[1][broken[0]].all())
