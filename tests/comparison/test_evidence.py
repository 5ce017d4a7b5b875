from __future__ import annotations

from pathlib import Path

from bench.comparison.evidence import row_values
from bench.leaderboard.table import read_leaderboard

BOARD = Path(__file__).parents[2] / "leaderboard"
WITHOUT_EXAMPLES = {"corruptions", "minimum_norm", "manifold_distance", "roar_quick", "kar_quick"}
"""Their metrics are no means over examples, but for clean accuracy."""


def test_the_evidence_of_every_suite_of_the_shipped_leaderboard_says_what_the_rows_say() -> None:
    rows = read_leaderboard(BOARD)
    for suite, of_suite in rows.groupby("suite"):
        own = of_suite[of_suite["run_id"] == of_suite["run_id"].iloc[-1]]
        kept = row_values(BOARD / "runs" / str(own["run_id"].iloc[0]), own)
        after = own["metric"] == "robust_accuracy_after"
        assert suite in WITHOUT_EXAMPLES or len(kept) >= (~after).sum() - 1
