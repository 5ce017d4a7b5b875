from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

from bench.comparison.evidence import row_values, run_values
from bench.leaderboard.metrics import keys_of
from bench.leaderboard.table import read_leaderboard

BOARD = Path(__file__).parents[2] / "leaderboard"
NO_MEANS = "median_distance|explained_variance|clean_manifold_distance|manifold_[da]|roar_|kar_|retrained_accuracy"
"""Metrics that are no means over examples."""


def test_the_evidence_of_every_shipped_suite_says_what_the_rows_say_and_needs_no_optional_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for package in ("foolbox", "pyautoattack", "torchattacks"):
        monkeypatch.setitem(sys.modules, package, None)
    rows = read_leaderboard(BOARD)
    for suite, of_suite in rows.groupby("suite"):
        own = of_suite[of_suite["run_id"] == of_suite["run_id"].iloc[-1]]
        kept = row_values(BOARD / "runs" / str(own["run_id"].iloc[0]), own)
        means = own[~own["metric"].str.match(NO_MEANS)]
        kept = {key: one for key, one in kept.items() if one.values.notna().any()}  # one of controls never is defined
        assert list(kept) == keys_of(means), suite
        for key in list(kept)[-1:]:  # none where all metrics are of several nets
            alone = run_values(BOARD / "runs" / str(own["run_id"].iloc[0]), key)[key]
            assert (alone.key, alone.unit, alone.prominence) == (key, kept[key].unit, kept[key].prominence), suite
            pd.testing.assert_series_equal(alone.values.sort_index(), kept[key].values.sort_index(), check_names=False)
