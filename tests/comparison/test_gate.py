from __future__ import annotations

from typing import Any, Literal

import pytest

from bench.comparison.compare import SuiteComparison
from bench.comparison.gate import GateRules, RegressionReport, Remark, _finding_remarks, _metric_remarks, _time_remarks
from bench.leaderboard.evidence.manifest import Result
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import MetricKey
from bench.leaderboard.statistics.paired import Comparison
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
