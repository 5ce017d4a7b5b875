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
