"""What verdicts look like in writing."""

from __future__ import annotations

import pandas as pd
import pytest

from bench.studies.report import effect_text, runs_text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0.0000"),
        (0.00162, "0.0016"),
        (-0.0538, "-0.0538"),
        (-3.02e-6, "-0.0000030"),
        (4.5e-5, "0.000045"),
        (None, ""),
    ],
)
def test_an_effect_too_small_for_four_decimals_is_not_written_as_none(number: float | None, text: str) -> None:
    assert effect_text(number) == text


def test_the_evidence_names_suites_and_versions() -> None:
    """Two versions of a suite are two attacks: a reader has to see on which one a verdict rests."""
    runs = [("a", "clean", 1), ("b", "cross_norm", 3), ("c", "cross_norm", 3), ("d", "cross_norm", 5)]
    rows = pd.DataFrame([*runs, runs[0]], columns=["run_id", "suite", "suite_version"])
    of_suites = "1 of clean (version 1), 2 of cross_norm (version 3), 1 of cross_norm (version 5)"
    assert runs_text(rows) == f"4 runs: {of_suites}"
    assert runs_text(rows[:0]) == "0 runs"
