from __future__ import annotations

from pathlib import Path

from bench.comparison.evidence import row_values
from bench.leaderboard.metrics import keys_of
from bench.leaderboard.table import read_leaderboard

BOARD = Path(__file__).parents[2] / "leaderboard"
NO_MEANS = "median_distance|explained_variance|clean_manifold_distance|manifold_|roar_|kar_|retrained_accuracy"
"""Metrics that are no means over examples."""


def test_the_evidence_of_every_suite_of_the_shipped_leaderboard_says_what_the_rows_say() -> None:
    rows = read_leaderboard(BOARD)
    for suite, of_suite in rows.groupby("suite"):
        own = of_suite[of_suite["run_id"] == of_suite["run_id"].iloc[-1]]
        kept = row_values(BOARD / "runs" / str(own["run_id"].iloc[0]), own)
        means = own[~own["metric"].str.match(NO_MEANS)]
        assert list(kept) == keys_of(means), suite
