"""Verdicts on nets out of a grammar, against exact optima and brute force; hundreds: `pytest -m slow -k grammar`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from bench.attacks.cascade.attack import Cascade
from bench.attacks.cascade.stages import Stage
from bench.attacks.losses import margin
from bench.attacks.norms import distance
from bench.attacks.registry import named_attack
from bench.attacks.running import Examples, run_attack
from bench.attacks.sigma_zero import sigma_zero
from bench.attacks.sweep.restarts import SweepSettings
from bench.attacks.sweep.sweep import NormSweep
from bench.attacks.verification import AttackResults
from bench.core.threat import NORMS, Norm
from tests.attacks.linear import exact_radius, fewest_values
from tests.grammar import NanNear, Net, numbered, prepared, random_images, random_net

Attack = Callable[[nn.Module, Tensor, Tensor, Norm, float, int], Tensor]
SWEEP = SweepSettings(steps=11, losses=("cross_entropy",), targets=2, refine=9)
STAGES = (
    Stage(steps=8), Stage(steps=12, targets=2, widen=3.0),
    Stage(steps=12, refine=True, dense=0.03, first=0.5, norms=("l1",)),
)  # fmt: skip


def sweep(net: nn.Module, images: Tensor, labels: Tensor, norm: Norm, eps: float, batch: int) -> Tensor:
    results = AttackResults.start(net(images).argmax(1), labels)
    NormSweep(
        net,
        images,
        labels,
        torch.arange(len(images)),
        norm=norm,
        radii=[eps],
        settings=SWEEP,
        results=results,
        batch_size=batch,
    ).run()
    return results.broken(norm, eps)


def cascade(net: nn.Module, images: Tensor, labels: Tensor, norm: Norm, eps: float, batch: int) -> Tensor:
    results = AttackResults.start(net(images).argmax(1), labels)
    Cascade(
        net,
        images,
        labels,
        torch.arange(len(images)),
        norm=norm,
        eps=eps,
        stages=STAGES,
        results=results,
        batch_size=batch,
    ).run()
    return results.broken(norm, eps)


def component(name: str, net: nn.Module, images: Tensor, labels: Tensor, norm: Norm, eps: float, batch: int) -> Tensor:
    results = AttackResults.start(net(images).argmax(1), labels)
    run = named_attack(name, {"queries": 60} if name == "square" else {"iterations": 20})
    run_attack(
        run, Examples(net, images, labels, torch.arange(len(images)), num_classes=3, batch_size=batch), norm, [eps],
        results=results,
    )  # fmt: skip
    return results.broken(norm, eps)


ATTACKS: dict[str, Attack] = {
    "sweep": sweep, "cascade": cascade,
    **{name: partial(component, name) for name in ("apgd-ce", "apgd-t", "fab-t", "square")},
}  # fmt: skip
CLEAR = {"sweep": 1.02, "cascade": 1.02, "fab-t": 1.02}
"""How far beyond its exact radius each attack breaks every image of a linear net; the others may miss some."""
EPS: dict[Norm, float] = {"linf": 0.06, "l2": 0.5, "l1": 3.0}


def problem(seed: int, family: str, count: int) -> tuple[Net, Tensor, Tensor, Norm, str]:
    """A net, images with its own answers as labels (but for one), and the norm and the attack whose turn it is."""
    net = random_net(seed, family)
    images = random_images(net.kind, count, seed)
    labels = net(images).argmax(1)
    labels[0] = (labels[0] + 1) % 3
    name = list(ATTACKS)[seed // 3 % len(ATTACKS)]
    return net, images, labels, NORMS[seed % 3], name


@pytest.mark.parametrize("seed", numbered(12, 300))
def test_of_linear_nets_exactly_the_images_that_can_be_broken_are(seed: int) -> None:
    net, images, labels, norm, name = problem(seed, "linear", 12)
    exact = exact_radius(net, images, labels, norm)
    eps = float(exact.quantile(0.6))
    broken = ATTACKS[name](net, images, labels, norm, eps, 64)
    assert not broken[exact > eps * (1 + 1e-5)].any(), f"{name} {norm}: {net}"
    assert broken[exact * CLEAR.get(name, torch.inf) < eps].all(), f"{name} {norm}: {net}"


@pytest.mark.parametrize("seed", numbered(6, 120))
def test_what_brute_force_breaks_the_sweep_or_the_cascade_breaks(seed: int) -> None:
    """Images of four pixels; a search by gradients may miss one in ten."""
    net = random_net(seed, "relu", "grey", size=2)
    images, norm = random_images("grey", 10, seed, size=2), NORMS[seed % 3]
    labels = net(images).argmax(1)
    eps = {"linf": 0.25, "l2": 0.4, "l1": 0.6}[norm]
    standing = ~sweep(net, images, labels, norm, eps=eps, batch=64) & ~cascade(
        net, images, labels, norm, eps=eps, batch=64
    )
    clearly = torch.stack([_best_margin(net, *one, norm, eps) for one in zip(images, labels, strict=True)]) > 0.02
    assert int((clearly & standing).sum()) <= 1, f"{norm}: {net}"


def _best_margin(net: nn.Module, image: Tensor, label: Tensor, norm: Norm, eps: float) -> Tensor:
    """The largest margin on a grid in the ball."""
    moves = torch.cartesian_prod(*[torch.linspace(-eps, eps, 7)] * 4)
    moves = moves[distance(moves, norm) <= eps * (1 + 1e-6)].view(-1, *image.shape)
    points = (image + moves).clamp(0.0, 1.0)
    return margin(net(points), label.expand(len(points))).amax()


@pytest.mark.parametrize("seed", numbered(12, 300))
def test_no_verdict_depends_on_batches_or_on_preparation(seed: int) -> None:
    net, images, labels, norm, name = problem(seed, "any", 8)
    batch = (1, 7)[seed // 2 % 2]
    whole = ATTACKS[name](net, images, labels, norm, EPS[norm], 64)
    found = ATTACKS[name](net, images, labels, norm, EPS[norm], batch)
    assert torch.equal(whole, found), f"{name} {norm}, batches of {batch}: {net}"
    found = ATTACKS[name](prepared(net), images, labels, norm, EPS[norm], 64)
    assert torch.equal(whole, found), f"{name} {norm}: {net}"


@pytest.mark.parametrize("seed", numbered(12, 300))
def test_an_answer_that_is_no_number_is_broken_under_every_attack(seed: int) -> None:
    net, images, labels, norm, name = problem(seed, "any", 6)
    answer = (torch.nan, torch.inf, -torch.inf)[seed // 2 % 3]
    broken = ATTACKS[name](NanNear(net, answer), images, labels, norm, EPS[norm], 64)
    assert broken.all(), f"{name} {norm} {answer}: {net}"


@pytest.mark.parametrize("seed", numbered(3, 60))
def test_sigma_zero_changes_as_many_values_as_it_says_and_no_fewer_than_it_takes(seed: int) -> None:
    net, images, labels, _, _ = problem(seed, "linear", 8)
    exact = fewest_values(net, images, labels)
    found, counts = sigma_zero(net, images, labels, steps=40)
    assert (counts >= exact).all(), net
    assert torch.equal((found != images).flatten(1).sum(1)[counts.isfinite()].float(), counts[counts.isfinite()]), net
    assert counts[exact.isfinite()].isfinite().float().mean() > 0.8, net
