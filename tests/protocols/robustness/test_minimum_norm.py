from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from bench.attacks.sigma_zero import sigma_zero
from bench.attacks.sweep.restarts import SweepSettings
from bench.attacks.sweep.sweep import NormSweep
from bench.attacks.verification import AttackResults
from bench.core.threat import Norm
from bench.data import ImageDataset
from bench.protocols import EvaluationContext
from bench.protocols.robustness.presets import MinimumNorm
from tests.attacks.linear import linear_problem


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_distances_of_a_linear_classifier_are_exact_to_half_a_percent(norm: Norm) -> None:
    """No verified adversarial example lies below the exact distance, and the attack comes within 0.5 % of it."""
    model, images, labels = linear_problem(20)
    exact = model.exact_distance(images, norm)
    ladder = [float(exact.max()) * 1.01 / 1.004**rung for rung in range(600)]
    results = AttackResults.start(model(images).argmax(1), labels)
    settings = SweepSettings(20, ("margin",), 1, 0)
    NormSweep(
        model, images, labels, torch.arange(20), norm=norm, radii=ladder, settings=settings, results=results
    ).run()
    ratio = results.distances[norm] / exact
    reachable = exact > min(ladder) * 1.01
    assert reachable.float().mean() >= 0.85
    assert (ratio[reachable] >= 1 - 1e-5).all()
    assert (ratio[reachable] <= 1.005).all()


def test_sigma_zero_finds_the_fewest_pixels_of_a_linear_classifier() -> None:
    """Where any pixel may go to 0 or 1, the fewest changes take the pixels with the largest effect first."""
    model, images, labels = linear_problem(30)
    with torch.no_grad():
        score = (images.flatten(1) @ model.weight + model.bias).abs()
        away = -(images.flatten(1) @ model.weight + model.bias).sign()
        target = (away[:, None] * model.weight > 0).float()
        effects = ((target - images.flatten(1)) * model.weight).abs().sort(descending=True).values.cumsum(1)
        exact = (effects <= score[:, None]).sum(1) + 1
    found, fewest = sigma_zero(model, images, labels, steps=200)
    changed = (found != images).flatten(1).sum(1)
    assert (model(found).argmax(1) != labels).all()
    assert torch.equal(changed.float(), fewest)
    assert (changed >= exact).all()
    assert (changed <= exact).float().mean() > 0.9


class InFloat64(nn.Module):
    """The same net, rounded otherwise, as another batch size or thread count rounds."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = deepcopy(net).double()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images.double())
        return logits.float()


def test_how_a_net_rounds_does_not_decide_how_few_values_sigma_zero_changes() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 24), nn.ReLU(), nn.Linear(24, 5)
        )
        images = torch.rand(24, 1, 8, 8)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.5)
        labels = net(images).argmax(1)
    one, other = (sigma_zero(model, images, labels, steps=200)[1] for model in (net, InFloat64(net)))
    assert torch.equal(one, other)


def test_images_that_need_nothing_or_cannot_be_broken() -> None:
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([images.flatten(1).sum(1) * 0.0, images.flatten(1).sum(1) * 0.0 - 1.0], 1)

    images, labels = torch.rand(2, 1, 3, 3), torch.tensor([0, 1])
    found, fewest = sigma_zero(Constant(), images, labels, steps=5)
    assert fewest.tolist() == [torch.inf, 0.0]
    assert torch.equal(found, images)


def test_medians_are_of_the_images_classified_right(standard: nn.Module, fashion_test: ImageDataset) -> None:
    parameters = {
        "steps": 5, "rungs": 8, "ratio": 1.4, "zero_norm_steps": 20,
        "datasets": {"fashion_mnist": {"largest": {"linf": 0.3, "l2": 4.0}}},
    }  # fmt: skip
    protocol = MinimumNorm.from_parameters(parameters, "test")
    context = EvaluationContext(
        standard, "net", fashion_test, 0, stop=24, seed=0, device=torch.device("cpu"), batch_size=16
    )
    records = protocol.evaluate(context).records
    assert set(records["norm"]) == {"linf", "l2", "l0"}
    wrong = records["prediction"] != records["label"]
    assert (records.loc[wrong, "distance"] == 0).all() and (records.loc[~wrong, "distance"] > 0).all()
    for metric in protocol.metrics("fashion_mnist", records)[1:]:
        values = records.loc[~wrong & (records["norm"] == metric.key.norm), "distance"].sort_values().tolist()
        assert metric.value == values[(len(values) - 1) // 2]
        assert metric.ci_low <= metric.value <= metric.ci_high
