from __future__ import annotations

from pathlib import Path

import pyautoattack
import pytest
import torch
from torch import nn

from bench.attacks.adapters.pyautoattack import Version
from bench.attacks.apgd.attack import RESTARTS, TARGETS
from bench.catalog.suites import read_suite
from bench.core.threat import NORMS, Norm
from bench.data import ImageDataset
from bench.protocols import EvaluationContext, Protocol, UnitResult, protocol_for
from bench.protocols.robustness.plan import ReferenceRadii
from bench.protocols.robustness.presets import AutoAttackParameters
from bench.protocols.robustness.protocol import Robustness

NAMES: dict[Norm, str] = {"linf": "Linf", "l2": "L2", "l1": "L1"}

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
    context = EvaluationContext(
        at_linf, "net", fashion_test, 100, stop=112, seed=0, device=torch.device("cpu"), batch_size=256
    )
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
    context = EvaluationContext(
        at_linf, "net", fashion_test, 100, stop=112, seed=0, device=torch.device("cpu"), batch_size=11
    )
    again = protocol.evaluate(context)
    columns = ["example_id", "attack", "norm", "broken", "adversarial_prediction"]
    assert first.records[columns].equals(again.records[columns])


@pytest.mark.parametrize(("line", "patient"), [("", False), ("patient = true", True)])
def test_a_suite_can_ask_for_every_step_and_query(tmp_path: Path, line: str, patient: bool) -> None:
    path = tmp_path / "small.toml"
    path.write_text(SUITE.replace("queries = 15", f"queries = 15\n{line}"))
    protocol = protocol_for(read_suite(path))
    assert isinstance(protocol, Robustness)
    asked = {entry.name: entry.keywords.get("patient") for entry in protocol.plan.entries}
    assert asked == {"apgd-ce": None, "apgd-t": None, "fab-t": patient, "square": patient}


@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
@pytest.mark.parametrize("norm", NORMS)
def test_components_and_their_settings_are_those_of_the_distribution(version: Version, norm: Norm) -> None:
    section = AutoAttackParameters(version=version, datasets={"any": ReferenceRadii(reference={norm: 1.0})})
    original = pyautoattack.AutoAttack(nn.Identity(), norm=NAMES[norm], eps=1.0, version=version)
    entries = section.plan().entries
    assert [entry.name for entry in entries] == original.attacks_to_run
    given = {entry.name: entry.prepared(None) for entry in entries if ":" not in entry.attack}
    if not given:
        return
    restarts = given["apgd-ce"].keywords.get("restarts") or RESTARTS[norm]
    targets = given["apgd-t"].keywords.get("targets") or TARGETS[norm]
    assert (restarts, targets) == (original.apgd.n_restarts, original.apgd_targeted.n_target_classes)
    defaults = {name: {key: one.default for key, one in run.attack.parameters.items()} for name, run in given.items()}
    assert {one.get("iterations") for one in defaults.values()} == {original.apgd.n_iter, None}
    assert defaults["fab-t"]["targets"] == original.fab.n_target_classes
    assert defaults["square"]["queries"] == original.square.n_queries
