from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest

from bench.catalog.locations import shipped
from bench.comparison.baseline import comparable_rows
from bench.comparison.compare import SuiteComparison, _adjusted
from bench.comparison.gate import (
    GateRules,
    RegressionReport,
    Remark,
    _defined_remarks,
    _digest_remarks,
    _finding_remarks,
    _metric_remarks,
    _time_remarks,
    _unpaired_remarks,
)
from bench.leaderboard.evidence.manifest import Result
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import ExampleValues, MetricKey
from bench.leaderboard.statistics.paired import Comparison, compare_defined, compare_values
from bench.leaderboard.table import read_leaderboard
from tests.leaderboard.evidence.manifests import whole_manifest

Seen = tuple[Literal["note", "warning"], str]


def compared(first: float, second: float, p_value: float = 0.001) -> SuiteComparison:
    key = MetricKey("robust_accuracy", attack="sweep", norm="linf", eps=0.1)
    one = Comparison(
        key, "higher", "share", 200, first=first, second=second, ci_low=0.0, ci_high=0.0, p_value=p_value,
        test="McNemar",
    )  # fmt: skip
    return SuiteComparison("", "tiny", "fashion_mnist", ("a", "b"), comparisons=[one], adjusted=[p_value], unpaired=[])


def test_a_gain_is_no_silence_and_beyond_the_tolerance_it_is_suspicious() -> None:
    (huge,) = _metric_remarks(compared(0.0, 0.93), GateRules())
    assert huge.severity == "warning" and "improved from 0.0 % to 93.0 %; suspicious" in huge.text
    (small,) = _metric_remarks(compared(0.5, 0.503), GateRules())
    assert (
        small.severity == "note" and small.text == "robust accuracy (sweep, L-inf 0.1) improved from 50.0 % to 50.3 %"
    )
    assert not list(_metric_remarks(compared(0.5, 0.6, p_value=0.2), GateRules()))


@pytest.mark.parametrize(
    ("before", "now", "fails"),
    [
        (("note", "no sign; 50 images"), ("note", "no sign; 50 images"), False),
        (("note", "no sign; 50 images"), ("warning", "suspicious; 50 images"), True),
        (("warning", "suspicious; 50 images"), ("warning", "masked; 50 images"), True),
        (("warning", "masked; 50 images"), ("warning", "suspicious; 50 images"), False),
        (None, ("warning", "masked; 50 images"), True),
    ],
)
def test_a_finding_that_became_graver_fails_though_its_name_is_known(
    before: Seen | None, now: Seen, fails: bool
) -> None:
    class Outcome:
        findings = (Finding("gradient_masking", *now, "do something"),)

    known = [] if before is None else [Finding("gradient_masking", *before, "do something")]
    outcome: Any = Outcome()
    remarks = list(_finding_remarks(outcome, whole_manifest(result=Result(findings=known))))
    assert [remark.severity for remark in remarks] == (["failure"] if fails else [])


def test_a_baseline_that_took_no_time_at_all_is_no_division_by_zero() -> None:
    assert list(_time_remarks(5.0, 0.0, GateRules())) == []


def test_a_verdict_passes_unless_a_remark_is_a_failure() -> None:
    assert RegressionReport("m", "s", 1.0, [Remark("warning", "time", "slow")]).passed
    assert not RegressionReport("m", "s", 1.0, [Remark("failure", "metric", "worse")]).passed


def test_what_only_describes_makes_no_fall_harder_to_see() -> None:
    (one,) = compared(0.5, 0.4, 0.02).comparisons
    told = [dataclasses.replace(one, key=MetricKey(f"told_{place}"), direction="descriptive") for place in range(5)]
    assert _adjusted([told[0], one, *told[1:]]) == pytest.approx([0.1, 0.02, *[0.1] * 4])


@pytest.mark.parametrize(("before", "now", "fails"), [(np.inf, 0.2, True), (np.inf, np.inf, False), (2.0, 0.2, True)])
def test_a_median_that_was_infinite_and_is_finite_fails(before: float, now: float, fails: bool) -> None:
    fields = {"metric": "median_distance", "subject": "", "attack": "worst", "norm": "l2", "eps": np.nan}
    rows = [
        pd.DataFrame([{**fields, "value": value, "ci_low": value, "ci_high": value, "direction": "higher", "unit": "distance"}])
        for value in (before, now)
    ]  # fmt: skip
    assert bool(list(_unpaired_remarks(compared(0.5, 0.5), *rows, GateRules()))) == fails


def plan_like(row: pd.Series) -> Any:
    """A plan as far as the search for its baseline looks at it: of the run that a row is of, made again."""
    return SimpleNamespace(
        entry=SimpleNamespace(card=SimpleNamespace(id=row["model"], name=row["model"])),
        dataset=SimpleNamespace(name=row["dataset"], split=row["split"]), seed=row["seed"], precision=row["precision"],
        suite=SimpleNamespace(name=row["suite"], sha256=row["suite_sha256"]), examples=row["n_examples"],
        config=SimpleNamespace(dependencies_sha256=row["dependencies_sha256"]),
    )  # fmt: skip


def test_a_run_of_a_suite_without_clean_accuracy_is_found_in_the_baseline() -> None:
    rows = read_leaderboard(shipped("leaderboard"))
    one = rows[(rows["suite"] == "roar_quick") & (rows["model"] == "standard")].iloc[-1]
    found = comparable_rows(plan_like(one), shipped("leaderboard"))
    assert set(found["run_id"]) == {one["run_id"]} and "clean_accuracy" not in set(found["metric"])


def test_retraining_on_other_images_is_not_compared() -> None:
    before = whole_manifest()
    config = before.config.model_copy(update={"training_sha256": "t" * 64})
    now: Any = SimpleNamespace(
        plan=SimpleNamespace(entry=SimpleNamespace(card=before.card), answers=None),
        manifest=SimpleNamespace(config=config.model_copy(update={"training_sha256": "u" * 64})),
    )
    (remark,) = _digest_remarks(now, before.model_copy(update={"config": config}))
    assert remark.severity == "failure" and "the training images differ" in remark.text


def of_images(*runs: Any, metric: str = "stability/cosine") -> SuiteComparison:
    """Of two runs by their values of each image, where more is better."""
    pair = [ExampleValues(MetricKey(metric), pd.Series(run), "higher", "number") for run in runs]
    one = compare_values(pair[0], pair[1])
    return SuiteComparison(
        "", "tiny", "fashion_mnist", ("a", "b"), comparisons=[one], adjusted=[one.p_value], unpaired=[],
        defined=[compare_defined(*pair)],
    )  # fmt: skip


def near(lack: float) -> Any:
    """500 values that lack so much to 1 in the mean."""
    return 1.0 - lack * np.linspace(0.5, 1.5, 500)


def test_what_tables_read_from_one_may_lack_little_more_to_it() -> None:
    (worse,) = _metric_remarks(of_images(near(0.0004), near(0.00493)), GateRules())
    assert worse.severity == "failure" and "fell from 0.99960 to 0.9951 (t, p" in worse.text
    assert not list(_metric_remarks(of_images(near(0.0004), near(0.000401)), GateRules()))
    assert list(_metric_remarks(of_images(near(0.015), near(0.021)), GateRules())), "now farther than tables read it"
    assert not list(_metric_remarks(of_images(near(0.0), near(1e-7)), GateRules())), "float32 rounds so"
    assert list(_metric_remarks(of_images(near(0.0), near(0.001)), GateRules()))


def test_a_metric_that_is_undefined_on_most_images_now_fails() -> None:
    whole, few = np.full(500, 0.81), np.where(np.arange(500) < 5, 0.41, np.nan)
    assert not list(_metric_remarks(of_images(whole, few, metric="sparseness"), GateRules()))
    (remark,) = _defined_remarks(of_images(whole, few, metric="sparseness"), GateRules())
    assert remark.severity == "failure" and remark.text.startswith(
        "sparseness: the images on which it is defined fell from 500 to 5 of 500 (McNemar, p 2e-149); lost examples 5, 6,"
    )
    fewer = np.where(np.arange(500) < 497, 0.81, np.nan)
    for before, now in ((few, whole), (whole, fewer), (few, few)):  # a gain, by chance, the same
        assert not list(_defined_remarks(of_images(before, now), GateRules()))
