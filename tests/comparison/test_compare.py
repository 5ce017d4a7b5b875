from __future__ import annotations

from pathlib import Path

import pytest

from bench.comparison import compare
from bench.core.errors import BenchError
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


def test_models_of_two_data_sets_have_no_image_in_common(tmp_path: Path) -> None:
    append_rows(tmp_path, [row(f"run-{name}", dataset=name) for name in ("mnist", "fashion_mnist")])
    with pytest.raises(
        BenchError, match="mnist/standard is of mnist, fashion_mnist/standard of fashion_mnist: no image"
    ):
        compare.compare_models("mnist/standard", "fashion_mnist/standard", tmp_path)
