"""Attacks against exact distances: of small nets solved once (benchmarks/strength/exact.npz), and of tiny ones here."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from bench.attacks.registry import named_attack
from bench.attacks.running import Examples, run_attack
from bench.attacks.verification import AttackResults
from bench.core.threat import NORMS, Norm
from benchmarks.strength.exact import Exact, exact_distance
from benchmarks.strength.layers import Layers
from benchmarks.strength.programs import SOLVED, nearest_in_cell
from benchmarks.strength.truth import cascade_breaks, known, minimum_norm
from tests.attacks.linear import exact_radius

KNOWN = {one.name: one for one in known()}


def tiny(widths: list[int]) -> tuple[nn.Sequential, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in itertools.pairwise([6, *widths]):
            layers += [nn.Linear(before, after), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear([6, *widths][-1], 3)).requires_grad_(False), torch.rand(3, 1, 2, 3)


def of(net: nn.Sequential, image: torch.Tensor, norm: Norm, seconds: float = 30.0) -> Exact:
    label = int(net(image[None]).argmax())
    return exact_distance(
        Layers.of(net, tuple(image.shape)), image.flatten().double().numpy(), label, norm, seconds=seconds
    )


@pytest.mark.parametrize("norm", NORMS)
def test_a_linear_net_has_its_closed_form(norm: Norm) -> None:
    net, images = tiny([])
    closed = exact_radius(net, images, net(images).argmax(1), norm)
    for image, expected in zip(images, closed.tolist(), strict=True):
        found = of(net, image, norm)
        assert found.solved and found.upper == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("widths", [[5], [3, 3]])
def test_the_distance_is_that_of_the_nearest_of_all_cells(widths: list[int], norm: Norm) -> None:
    net, images = tiny(widths)
    layers, order = Layers.of(net, (1, 2, 3)), {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    image = images[0].flatten().double().numpy()
    label, lengths = int(net(images[:1]).argmax()), [np.inf]
    for bits in itertools.product((0.0, 1.0), repeat=sum(widths)):
        signs = np.split(np.array(bits), np.cumsum(widths)[:-1])
        for target in {0, 1, 2} - {label}:
            gain = np.eye(3)[target] - np.eye(3)[label]
            point = nearest_in_cell(*layers.cell(signs, gain), image, norm)
            lengths += [] if point is None else [float(np.linalg.norm(point - image, order))]
    found = of(net, images[0], norm)
    assert found.solved and found.upper == pytest.approx(min(lengths), rel=1e-4)


@pytest.mark.parametrize("norm", NORMS)
def test_time_that_runs_out_leaves_bounds_and_no_guess(norm: Norm) -> None:
    net, images = tiny([5])
    found = of(net, images[0], norm, seconds=0.0)
    assert (found.lower, found.upper, found.solved) == (0.0, np.inf, False)


def test_other_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="not Tanh"):
        Layers.of(nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Tanh()), (4,))


@pytest.mark.parametrize("name", KNOWN)
def test_minimum_norm_is_never_below_the_exact_distance_and_at_it(name: str) -> None:
    one = KNOWN[name]
    found = minimum_norm(one.net, one.images[:4], one.labels[:4])
    for norm in NORMS:
        lower, upper = one.bounds[norm][:4].T
        assert (found.distances[norm] >= lower * (1 - SOLVED)).all()
        assert (found.distances[norm] <= upper * 1.01).double().mean() >= 0.75  # of all 257: benchmarks/strength


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("attack", ["pgd", "apgd-ce", "apgd-t", "fab-t", "square", "cascade"])
def test_no_attack_breaks_an_image_below_its_exact_distance(attack: str, norm: Norm) -> None:
    one = KNOWN["one_layer"]
    for image, label, (lower, upper) in zip(one.images[:1], one.labels[:1], one.bounds[norm].tolist(), strict=False):
        examples = Examples(one.net, image[None], label[None], torch.arange(1), num_classes=10)
        if attack == "cascade":
            assert not cascade_breaks(one.net, image[None], label[None], norm, lower * (1 - SOLVED))
            assert cascade_breaks(one.net, image[None], label[None], norm, upper * 1.05)
            continue
        keywords = {"queries": 200} if attack == "square" else {}
        results = AttackResults.start(label[None], label[None])
        run_attack(named_attack(attack, keywords), examples, norm, [lower * (1 - SOLVED)], results=results)
        assert not results.broken(norm, lower * (1 - SOLVED)).any()
