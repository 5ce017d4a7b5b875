"""What the size of the logits, a constant added to them, and answers that are no numbers do to every suite's verdicts."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from bench.core.threat import NORMS
from bench.data import ImageDataset
from bench.nets.logit_scale import at_usual_scale
from bench.protocols import EvaluationContext, Protocol, UnitResult
from bench.protocols.robustness.corruptions import Corruptions
from bench.protocols.robustness.presets import AutoAttack, AutoAttackFast, BlackBox, CrossNorm, MinimumNorm, Union
from tests.attacks.linear import LinearClassifier, linear_problem

COUNT = 8
MOVES = [(2.0**-100, 0.0), (2.0**100, 0.0), (1.0, -1000.0)]
"""What logits are multiplied with, about 1e-30 to 1e30, and what is added to them."""


def data_of(images: Tensor, labels: Tensor) -> ImageDataset:
    return ImageDataset(
        "tiny", "test", images, labels, class_names=tuple("abcde"[: int(labels.max()) + 1]), source="made here"
    )


@pytest.fixture(scope="module")
def linear() -> tuple[LinearClassifier, ImageDataset, dict[str, float]]:
    """The classifier, grey images on the grid of 8 bits, and radii that break about half of them."""
    model, images, _ = linear_problem(COUNT)
    pixels = (images * 255).round().to(torch.uint8)
    labels = model(pixels / 255).argmax(1)
    radii = {norm: float(model.exact_distance(pixels / 255, norm).median()) * 1.05 for norm in NORMS}
    return model, data_of(pixels, labels), radii


@pytest.fixture(scope="module")
def relu() -> tuple[nn.Module, ImageDataset, dict[str, float]]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(36, 24), nn.ReLU(), nn.Linear(24, 4))
        pixels = torch.randint(0, 256, (COUNT, 1, 6, 6), dtype=torch.uint8)
    for parameter in net.requires_grad_(False)[3].parameters():
        parameter.mul_(8.0)
    labels = net(pixels / 255).argmax(1)
    return net, data_of(pixels, labels), {"linf": 0.06, "l2": 0.3, "l1": 1.2}


class Moved(nn.Module):
    def __init__(self, net: nn.Module, factor: float, shift: float) -> None:
        super().__init__()
        self.net, self.factor_of, self.shift = net, factor, shift

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images) * self.factor_of + self.shift
        return logits


class Silent(nn.Module):
    """No number, for one class or for all, as soon as a pixel leaves the grid of 8 bits."""

    def __init__(self, net: nn.Module, answer: float, classes: slice) -> None:
        super().__init__()
        self.net, self.answer, self.classes = net, answer, classes

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images).clone()
        off = (images * 255 - (images * 255).round()).abs().flatten(1).amax(1) > 1e-2
        logits[:, self.classes] = torch.where(off[:, None], self.answer, logits[:, self.classes])
        return logits


def sweep(losses: list[str]) -> dict[str, Any]:
    return {"kind": "sweep", "name": "sweep", "steps": 6, "losses": losses, "patience": 1, "polish": 4}


def pgd(norm: str, name: str) -> dict[str, Any]:
    steps, alpha = {"parameters": {"steps": 6}}, {"relative_parameters": {"alpha": 0.3}}
    return {"kind": "torchattacks", "name": name, "class_name": name, "norm": norm, **steps, **alpha}


def protocol(name: str, radii: dict[str, float]) -> Protocol:
    reference = {"datasets": {"tiny": {"reference": radii}}}
    ladder = {"datasets": {"tiny": {"radii": {norm: [eps] for norm, eps in radii.items()}, "reference": radii}}}
    stages = {"stages": [{"steps": 6}, {"steps": 6, "targets": 1, "widen": 2.0}, {"steps": 4, "polish": True}]}
    effort = {"iterations": 8, "queries": 30}
    made: dict[str, tuple[type[Protocol], dict[str, Any]]] = {
        "margin": (CrossNorm, {"attacks": [sweep(["margin"])], **ladder}),
        "cross_entropy": (CrossNorm, {"attacks": [sweep(["cross_entropy"])], **ladder}),
        "dlr": (CrossNorm, {"attacks": [sweep(["dlr", "softmax_cross_entropy"])], **ladder}),
        "torchattacks": (CrossNorm, {"attacks": [pgd("linf", "PGD"), pgd("l2", "PGDL2")], **ladder}),
        "autoattack": (AutoAttack, {"version": "standard", **effort, **reference}),
        "autoattack_plus": (AutoAttack, {"version": "plus", **effort, **reference}),
        "autoattack_rand": (AutoAttack, {"version": "rand", **effort, **reference}),
        "autoattack_fast": (AutoAttackFast, {**stages, **reference}),
        "union": (Union, {**stages, **reference}),
        "blackbox": (BlackBox, {"queries": 30, "decision_steps": 1, **reference}),
        "minimum_norm": (
            MinimumNorm,
            {
                "steps": 6, "rungs": 4, "ratio": 1.3, "zero_norm_steps": 20,
                "datasets": {"tiny": {"largest": {norm: 1.5 * eps for norm, eps in radii.items()}}},
            },
        ),
        "corruptions": (Corruptions, {"corruptions": ["gaussian_noise", "contrast"]}),
    }  # fmt: skip
    kind, parameters = made[name]
    return kind.from_parameters(parameters, "test")


SUITES = [
    "margin", "cross_entropy", "dlr", "torchattacks", "autoattack", "autoattack_plus", "autoattack_rand",
    "autoattack_fast", "union", "blackbox", "minimum_norm", "corruptions",
]  # fmt: skip


def evaluate(suite: str, model: nn.Module, data: ImageDataset, radii: dict[str, float]) -> UnitResult:
    usual = at_usual_scale(model, data.pixels(slice(0, COUNT)), COUNT)
    context = EvaluationContext(
        usual, "net", data, 0, stop=COUNT, seed=0, device=torch.device("cpu"), batch_size=64, examples=COUNT
    )
    return protocol(suite, radii).evaluate(context)


def verdicts(records: pd.DataFrame) -> list[Any]:
    """Of each row, whether it is broken, or at which rung of the ladder."""
    if "broken" in records:
        return records["broken"].tolist()
    return [float(f"{value:.2g}") for value in records["distance"]]


@pytest.mark.parametrize("suite", [suite for suite in SUITES if suite != "autoattack_plus"])
def test_an_answer_that_is_no_number_counts_as_broken(
    suite: str, linear: tuple[LinearClassifier, ImageDataset, dict[str, float]]
) -> None:
    model, data, radii = linear
    for answer, classes in ((float("nan"), slice(None)), (float("inf"), slice(1, 2)), (-float("inf"), slice(0, 1))):
        result = evaluate(suite, Silent(model, answer, classes), data, radii)
        records = result.records
        if suite == "torchattacks":
            records = records[records["norm"] != "l1"]
        if suite == "minimum_norm":
            assert records["distance"].max() < torch.inf
            continue
        assert records.groupby("example_id")["broken"].any().all(), answer
        if suite != "corruptions":
            assert result.counters["non_finite_logits"] > 0


SLOW = ("autoattack_plus", "autoattack_rand", "blackbox")


@pytest.mark.parametrize(
    "suite", [pytest.param(suite, marks=pytest.mark.slow) if suite in SLOW else suite for suite in SUITES]
)
def test_verdicts_do_not_depend_on_the_logits_size_or_on_a_constant(
    suite: str, relu: tuple[nn.Module, ImageDataset, dict[str, float]]
) -> None:
    model, data, radii = relu
    expected = verdicts(evaluate(suite, model, data, radii).records)
    assert len(set(expected)) > 1
    for factor, shift in MOVES:
        assert verdicts(evaluate(suite, Moved(model, factor, shift), data, radii).records) == expected, (factor, shift)


@pytest.mark.parametrize("suite", ["margin", "cross_entropy", "union"])
@pytest.mark.parametrize("factor", [1e-30, 1e-4, 1e30])
def test_the_verdict_on_a_linear_net_is_the_exact_one_at_any_size(
    suite: str, factor: float, linear: tuple[LinearClassifier, ImageDataset, dict[str, float]]
) -> None:
    model, data, radii = linear
    images = data.pixels(slice(0, COUNT))
    exact = torch.stack([model.exact_distance(images, norm) <= radii[norm] for norm in NORMS]).any(0)
    found = evaluate(suite, Moved(model, factor, 0.0), data, radii).records
    assert found.groupby("example_id")["broken"].any().tolist() == exact.tolist()
