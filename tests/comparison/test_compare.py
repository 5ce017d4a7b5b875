from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from bench.comparison import compare, evidence
from bench.core.errors import BenchError
from bench.leaderboard.metrics import ExampleValues, MetricKey
from bench.leaderboard.table import append_rows
from tests.leaderboard.rows import row


def test_suites_and_data_sets_are_named_or_by_wildcard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for suite in ("cross_norm", "cross_norm_quick", "clean"):
        append_rows(tmp_path, [row(f"run-{suite}", suite=suite)])
    monkeypatch.setattr(compare, "compare_runs", lambda _, pair, __: str(pair[0]["suite"].iloc[0]))
    found, skipped = compare.compare_models("standard", "standard", tmp_path, suite="cross_*", dataset="fashion*")
    assert found == ["cross_norm", "cross_norm_quick"] and not skipped
    for asked in ({"suite": "cros_norm"}, {"dataset": "mnist"}):
        with pytest.raises(BenchError, match=r"unknown (suite|data set)"):
            compare.compare_models("standard", "standard", tmp_path, **asked)


def test_the_newest_version_of_a_suite_that_both_have_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version, examples in ((3, 100), (5, 100), (6, 2)):
        own = {"suite_version": version, "n_examples": examples}
        append_rows(tmp_path, [row(f"a{version}", **own)])
        append_rows(tmp_path, [row(f"b{version}", model="other", **own)])
    append_rows(tmp_path, [row("a7", suite_version=7)])
    monkeypatch.setattr(compare, "compare_runs", lambda _, pair, __: pair[0]["run_id"].iloc[0])
    assert compare.compare_models("standard", "other", tmp_path)[0] == ["a6", "a5"]
    assert compare.compare_models("standard", "other", tmp_path, suite="cross_norm@3")[0] == ["a3"]


def test_a_metric_without_a_value_in_both_runs_is_named_and_the_others_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = range(60)
    values = {
        "a": {"sparseness": [0.8] * 60, "clean": [0.9] * 60, "mass": [0.5] * 30 + [math.nan] * 30},
        "b": {"sparseness": [math.nan] * 60, "clean": [0.9] * 60, "mass": [math.nan] * 30 + [0.5] * 30},
    }
    for run, own in values.items():
        given = {"attack": "", "norm": "", "eps": None, "n_examples": 60}
        rows = [row(run, model=run, **given) | {"metric": name} for name in own if (run, name) != ("b", "sparseness")]
        append_rows(tmp_path, rows)
    found = {
        run: {MetricKey(name): ExampleValues(MetricKey(name), pd.Series(one, index=images), "higher", "number")
              for name, one in own.items()}
        for run, own in values.items()
    }  # fmt: skip
    monkeypatch.setattr(evidence, "run_values", lambda folder: found[folder.name])
    monkeypatch.setattr(evidence, "agreeing", lambda *_: True)
    monkeypatch.setattr(compare, "evidence_doubt", lambda *_: "")
    (both,), _ = compare.compare_models("a", "b", tmp_path)
    assert [one.key.metric for one in both.comparisons] == ["clean"]
    assert {key.metric for key in both.unpaired} == {"sparseness", "mass"}
    assert {one.key.metric: (one.first, one.second) for one in both.defined} == {
        "sparseness": (1, 0),
        "mass": (0.5, 0.5),
    }


def test_models_of_two_data_sets_have_no_image_in_common(tmp_path: Path) -> None:
    append_rows(tmp_path, [row(f"run-{name}", dataset=name) for name in ("mnist", "fashion_mnist")])
    with pytest.raises(
        BenchError, match="mnist/standard is of mnist, fashion_mnist/standard of fashion_mnist: no image"
    ):
        compare.compare_models("mnist/standard", "fashion_mnist/standard", tmp_path)
