from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from bench.attacks.registry import NamedAttack, described
from bench.attacks.running import Examples, fewest_changes
from bench.attacks.verification import AttackResults
from bench.catalog.models import load_model, resolve_models
from bench.catalog.suites import read_suite
from bench.core.errors import BenchError
from bench.data import ImageDataset
from bench.protocols import EvaluationContext, protocol_for
from bench.protocols.robustness.presets import CrossNorm
from tests.conftest import TINY_SUITE

BOTH = (
    TINY_SUITE
    + """
[[parameters.attacks]]
kind = "torchattacks"
name = "pgd"
class_name = "PGD"
norm = "linf"
parameters = { steps = 5 }
relative_parameters = { alpha = 0.5 }
"""
)


def evaluate(path: Path, model: nn.Module, data: ImageDataset, count: int = 20) -> tuple[object, pd.DataFrame]:
    protocol = protocol_for(read_suite(path))
    context = EvaluationContext(model, "net", data, 0, stop=count, seed=0, device=torch.device("cpu"), batch_size=256)
    return protocol, protocol.evaluate(context).records


def test_records_hold_one_row_per_example_norm_and_radius(
    tiny_suite: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    _, records = evaluate(tiny_suite, standard, fashion_test)
    assert len(records) == 20 * 3
    assert not records.duplicated(["example_id", "attack", "norm", "eps"]).any()
    assert (records["broken"] == (records["distance"] <= records["eps"] * (1 + 1e-6))).all()
    wrong = records["prediction"] != records["label"]
    assert records.loc[wrong, "broken"].all() and (records.loc[wrong, "distance"] == 0).all()
    found = records["found_in_norm"] != ""
    assert (records.loc[found, "adversarial_prediction"] != records.loc[found, "label"]).all()


def test_metrics_are_shares_of_the_records(tiny_suite: Path, standard: nn.Module, fashion_test: ImageDataset) -> None:
    protocol, records = evaluate(tiny_suite, standard, fashion_test)
    metrics = {
        (metric.key.metric, metric.key.norm, metric.key.eps): metric
        for metric in protocol.metrics("fashion_mnist", records)
    }  # type: ignore[attr-defined]
    one = records.drop_duplicates("example_id")
    assert metrics["clean_accuracy", "", None].value == pytest.approx((one["label"] == one["prediction"]).mean())
    for norm, eps in (("linf", 0.05), ("linf", 0.1), ("l2", 1.5)):
        rows = records[(records["norm"] == norm) & (records["eps"] == eps)]
        metric = metrics["robust_accuracy", norm, eps]
        assert metric.value == pytest.approx(1 - rows["broken"].mean())
        assert metric.ci_low <= metric.value <= metric.ci_high and metric.n_examples == 20
    at_reference = records[(records["eps"] == 0.1) | (records["eps"] == 1.5)]
    survivors = ~at_reference.groupby("example_id")["broken"].any()
    assert metrics["union_accuracy", "all", None].value == pytest.approx(survivors.mean())


def test_with_two_attacks_the_worst_of_both_counts(
    tmp_path: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    path = tmp_path / "both.toml"
    path.write_text(BOTH.replace('name = "tiny"', 'name = "both"'))
    protocol, records = evaluate(path, standard, fashion_test)
    accuracies = {
        (metric.key.attack, metric.key.norm, metric.key.eps): metric.value
        for metric in protocol.metrics("fashion_mnist", records)  # type: ignore[attr-defined]
        if metric.key.metric == "robust_accuracy"
    }
    for eps in (0.05, 0.1):
        assert accuracies["worst", "linf", eps] <= min(accuracies["sweep", "linf", eps], accuracies["pgd", "linf", eps])
    assert accuracies["worst", "l2", 1.5] == accuracies["sweep", "l2", 1.5]


class NanGradients(nn.Module):
    """Right logits, but the derivative of sqrt at 0 times 0 makes the gradient of some pixels NaN."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        some = (images[:, :, :2] * 0.0).sqrt().sum((1, 2, 3))
        logits: torch.Tensor = self.net(images)
        return logits + 0.0 * some[:, None]


def test_nan_gradients_are_reported_and_do_not_stop_the_attack(
    tiny_suite: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    protocol = protocol_for(read_suite(tiny_suite))
    results = [
        protocol.evaluate(
            EvaluationContext(
                model, "net", fashion_test, 0, stop=20, seed=0, device=torch.device("cpu"), batch_size=256
            )
        )
        for model in (standard, NanGradients(standard))
    ]
    assert [finding.id for finding in results[0].findings] == []
    assert [finding.id for finding in results[1].findings] == ["bad_gradients"]
    assert results[1].counters["bad_gradients"] > 0
    robust = [1 - result.records["broken"].mean() for result in results]
    assert robust[1] <= robust[0] + 0.1


def test_a_data_set_without_radii_is_refused(tiny_suite: Path) -> None:
    with pytest.raises(BenchError, match="unknown data set for this suite 'mnist'"):
        protocol_for(read_suite(tiny_suite)).require_dataset("mnist")


def test_l0_counts_pixels_and_is_no_part_of_the_union(standard: nn.Module, fashion_test: ImageDataset) -> None:
    radii = {"reference": {"linf": 0.1}, "radii": {"linf": [0.1]}}
    sweep = {"kind": "sweep", "name": "sweep", "steps": 3, "losses": ["margin"], "patience": 1, "polish": 10}
    plain = CrossNorm.from_parameters({"attacks": [sweep], "datasets": {"fashion_mnist": radii}}, "test")
    parameters = {
        "attacks": [sweep], "zero_norm_steps": 30, "datasets": {"fashion_mnist": radii | {"pixels": [300, 2]}},
    }  # fmt: skip
    protocol = CrossNorm.from_parameters(parameters, "test")
    context = EvaluationContext(
        standard, "net", fashion_test, 0, stop=12, seed=0, device=torch.device("cpu"), batch_size=16
    )
    records = protocol.evaluate(context).records
    rows = records[records["norm"] == "l0"]
    assert len(rows) == 12 * 2 and set(rows["attack"]) == {"sigma_zero"}
    assert (rows["broken"] == (rows["distance"] <= rows["eps"])).all()
    wrong = rows["prediction"] != rows["label"]
    assert (rows["distance"][wrong] == 0).all() and (rows["distance"][~wrong] > 0).all()
    fooled = rows[rows["found_in_norm"] == "l0"]
    assert len(fooled) and (fooled["adversarial_prediction"] != fooled["label"]).all()
    metrics = {metric.key: metric.value for metric in protocol.metrics("fashion_mnist", records)}
    assert [key.eps for key in metrics if key.norm == "l0" and key.attack == "worst"] == [2.0, 300.0]
    (union,) = [value for key, value in metrics.items() if key.metric == "union_accuracy"]
    alone = plain.metrics("fashion_mnist", plain.evaluate(context).records)
    assert [union] == [metric.value for metric in alone if metric.key.metric == "union_accuracy"]


def test_a_colour_pixel_that_changes_in_all_channels_counts_once() -> None:
    def darken(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        found = images.clone()
        found[:, :, 0, 0] = 0.0
        return found

    class Corner(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.stack([images[:, :, 0, 0].sum(1), torch.ones(len(images))], 1)

    images, labels = torch.ones(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64)
    examples = Examples(Corner(), images, labels, torch.arange(2), num_classes=2)
    run = NamedAttack(described(darken, name="darken", norms=("l0",), kind="minimum"), "darken", {})
    for by_pixel, expected in ((True, 1), (False, 3)):
        counts, said = fewest_changes(run, examples, AttackResults.start(labels, labels), by_pixel=by_pixel)
        assert counts.tolist() == [expected] * 2 and said.tolist() == [1, 1]


@pytest.mark.parametrize("extra", [{"zero_norm_steps": 10}, {"pixels": [3]}, {"zero_norm_steps": 10, "pixels": [3, 3]}])
def test_l0_needs_both_steps_and_pixels(extra: dict[str, object]) -> None:
    pixels = {"pixels": extra["pixels"]} if "pixels" in extra else {}
    parameters = {
        "attacks": [{"kind": "sweep", "name": "sweep", "steps": 3, "losses": ["margin"], "patience": 1}],
        "zero_norm_steps": extra.get("zero_norm_steps", 0),
        "datasets": {"mnist": {"reference": {"linf": 0.1}, "radii": {"linf": [0.1]}, **pixels}},
    }
    with pytest.raises(BenchError, match="pixels"):
        CrossNorm.from_parameters(parameters, "test")


def test_norms_apart_search_each_norm_as_if_it_were_the_only_one(fashion_test: ImageDataset) -> None:
    """On a net trained in L-inf, where L1 finds little when it begins in a small ball."""
    net = load_model(resolve_models(["trades"])[0], "cpu")
    context = EvaluationContext(net, "net", fashion_test, 0, stop=40, seed=0, device=torch.device("cpu"), batch_size=40)
    attack = {"kind": "sweep", "name": "sweep", "steps": 19, "losses": ["cross_entropy"], "patience": 1, "polish": 10}
    in_l1 = {"l1": [5.0, 10.0, 15.0, 20.0, 30.0]}

    def standing(radii: dict[str, list[float]], **further: bool) -> pd.Series:
        reference = {norm: own[-1] for norm, own in radii.items()}
        datasets = {"fashion_mnist": {"radii": radii, "reference": reference}}
        suite = CrossNorm.from_parameters({"attacks": [attack], "datasets": datasets, **further}, "test")
        records = suite.evaluate(context).records
        return (~records[records["norm"] == "l1"].set_index(["eps", "example_id"])["broken"]).sort_index()

    both = {"l2": [0.5, 1.0, 1.5, 2.0, 2.5], **in_l1}
    alone, apart, together = standing(in_l1), standing(both, norms_apart=True), standing(both)
    assert not (apart & ~alone).any()
    assert together.loc[5.0].sum() >= 1.2 * apart.loc[5.0].sum()
