from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.attacks import autoattack
from bench.catalog.suites import read_suite
from bench.data import ImageDataset
from bench.protocols import EvaluationContext, Protocol, UnitResult, protocol_for

SUITE = """
schema_version = 1
name = "small"
version = 1
protocol = "autoattack"
examples = 20

[parameters]
version = "standard"
iterations = 5
queries = 15

[parameters.datasets.fashion_mnist]
reference = { linf = 0.05, l2 = 1.5 }
"""


@pytest.fixture(scope="module")
def evaluated(
    tmp_path_factory: pytest.TempPathFactory, at_linf: nn.Module, fashion_test: ImageDataset
) -> tuple[Protocol, UnitResult]:
    path = tmp_path_factory.mktemp("suites") / "small.toml"
    path.write_text(SUITE)
    protocol = protocol_for(read_suite(path))
    context = EvaluationContext(at_linf, "net", fashion_test, 100, 112, 0, torch.device("cpu"), 256)
    return protocol, protocol.evaluate(context)


def test_each_component_gets_what_its_forerunners_left_standing(evaluated: tuple[Protocol, UnitResult]) -> None:
    records = evaluated[1].records
    for norm in ("linf", "l2"):
        rows = records[records["norm"] == norm]
        standing = set(rows.loc[rows["prediction"] == rows["label"], "example_id"])
        for component in ("apgd-ce", "apgd-t", "fab-t", "square"):
            own = rows[rows["attack"] == component]
            # an example may also have fallen to an adversarial example of the other norm
            assert set(own["example_id"]) <= standing
            standing = set(own["example_id"]) - set(own.loc[own["broken"], "example_id"])
        verdict = rows[rows["attack"] == "autoattack"]
        assert len(verdict) == 12
        assert set(verdict.loc[~verdict["broken"], "example_id"]) == standing


def test_accuracies_after_components_fall_to_the_ensembles(evaluated: tuple[Protocol, UnitResult]) -> None:
    protocol, result = evaluated
    metrics = protocol.metrics("fashion_mnist", result.records)
    for norm in ("linf", "l2"):
        after = [m.value for m in metrics if m.key.metric == "robust_accuracy_after" and m.key.norm == norm]
        final = next(m.value for m in metrics if m.key.metric == "robust_accuracy" and m.key.norm == norm)
        assert len(after) == 4 and after == sorted(after, reverse=True) and after[-1] == pytest.approx(final)
    union = next(m.value for m in metrics if m.key.metric == "union_accuracy")
    assert union <= min(m.value for m in metrics if m.key.metric == "robust_accuracy")
    assert result.counters["gradient_evaluations"] > 0


def test_a_run_goes_on_after_a_stop_with_the_same_verdicts(
    tmp_path: Path, at_linf: nn.Module, fashion_test: ImageDataset, evaluated: tuple[Protocol, UnitResult]
) -> None:
    """A unit that is computed again, as after a kill, has the same rows."""
    protocol, first = evaluated
    torch.manual_seed(77)
    context = EvaluationContext(at_linf, "net", fashion_test, 100, 112, 0, torch.device("cpu"), 11)
    again = protocol.evaluate(context)
    columns = ["example_id", "attack", "norm", "broken", "adversarial_prediction"]
    assert first.records[columns].equals(again.records[columns])


@pytest.mark.parametrize(("line", "patient"), [("", False), ("patient = true", True)])
def test_a_suite_can_ask_for_every_step_and_query(
    tmp_path: Path, at_linf: nn.Module, fashion_test: ImageDataset, monkeypatch: pytest.MonkeyPatch, line: str,
    patient: bool,
) -> None:  # fmt: skip
    asked = []
    for name in ("square", "fab_targeted"):
        original = getattr(autoattack, name)

        def noted(*images: object, original: Callable[..., object] = original, **settings: object) -> object:
            asked.append(settings["patient"])
            return original(*images, **settings)

        monkeypatch.setattr(autoattack, name, noted)
    path = tmp_path / "small.toml"
    path.write_text(SUITE.replace("queries = 15", f"queries = 15\n{line}"))
    context = EvaluationContext(at_linf, "net", fashion_test, 100, 104, 0, torch.device("cpu"), 256)
    protocol_for(read_suite(path)).evaluate(context)
    assert asked.count(False) == (0 if patient else 4)  # the masking probe is always patient
