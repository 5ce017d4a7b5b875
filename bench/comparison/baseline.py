"""The leaderboard that the gate compares with, and what it has to have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bench.core.errors import BenchError
from bench.leaderboard.table import FILE_NAME, read_leaderboard


def baseline_rows(baseline: Path) -> pd.DataFrame:
    """The baseline's rows; raises BenchError that says how to make one."""
    if not (baseline / FILE_NAME).exists():
        raise BenchError(f"there is no baseline in {baseline}; make it with an update.", option=("update", "baseline"))
    return read_leaderboard(baseline)


def require_baseline(wanted: Sequence[tuple[str, str, str]], baseline: Path) -> None:
    """Raise BenchError, before any work, for a (data set, model, suite) of which the baseline has no run."""
    rows = baseline_rows(baseline)
    known = set(zip(rows["dataset"], rows["model"], rows["suite"], strict=True))
    missing = [f"{model} under {suite}" for data, model, suite in wanted if (data, model, suite) not in known]
    if missing:
        raise BenchError(
            f"the baseline {baseline} has no run of {', '.join(missing)}; add them with an update of the baseline.",
            option="update",
        )
