"""How many images that stand under a suite minimum_norm moves over the boundary inside that suite's radius.

    python benchmarks/strength/across_suites.py

From the evidence of a leaderboard alone: nothing is attacked. Both suites verify what they find, so that an image that
either breaks is broken, and a number that another suite can lower was too high.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from bench.core.threat import NORM_LABELS
from bench.leaderboard.evidence.records import read_records
from bench.leaderboard.table import of_newest_versions, read_leaderboard

SUITES = {"cross_norm": "sweep", "autoattack_fast": "cascade", "autoattack": "autoattack"}
"""The suites compared, and the attack whose rows are their verdict."""


def main(
    leaderboard: Path = Path("leaderboard"),
    least: Annotated[float, typer.Option(help="Differences from so many points on.")] = 2.0,
) -> None:
    """Print model, suite, norm and radius where minimum_norm leaves fewer images standing, the largest first."""
    rows = of_newest_versions(read_leaderboard(leaderboard))
    runs = rows.sort_values("finished_at").drop_duplicates(["dataset", "model", "suite", "model_sha256"], keep="last")
    lines = []
    for _, smallest in runs[runs["suite"] == "minimum_norm"].iterrows():
        distances = _records(leaderboard, smallest).groupby(["norm", "example_id"], observed=True)["distance"].min()
        alike = (runs["model_sha256"] == smallest["model_sha256"]) & (runs["dataset"] == smallest["dataset"])
        for _, run in runs[alike & runs["suite"].isin(SUITES)].iterrows():
            records = _records(leaderboard, run)
            verdict = records[(records["attack"] == SUITES[run["suite"]]) & (records["norm"] != "all")]
            for (norm, eps), own in verdict.groupby(["norm", "eps"], observed=True):
                table = own.set_index("example_id").join(distances.loc[norm].rename("smallest"), how="inner")
                stands, other = 1 - table["broken"].mean(), (table["smallest"] > eps).mean()
                both = (~table["broken"] & (table["smallest"] > eps)).mean()
                lines.append((stands - both, run["model"], run["suite"], norm, eps, stands, other, len(table)))
    print_gaps(lines, least)


def _records(leaderboard: Path, run: pd.Series) -> pd.DataFrame:
    return read_records(leaderboard / "runs" / str(run["run_id"]) / "examples.parquet")


def print_gaps(lines: list[tuple[float, str, str, str, float, float, float, int]], least: float) -> None:
    """One line a gap; then, of each suite and norm, the mean over models and radii and the largest."""
    for gap, model, suite, norm, eps, stands, other, count in sorted(lines, reverse=True):
        if 100 * gap >= least:
            sys.stdout.write(
                f"{model:22}{suite:16}{NORM_LABELS[norm]:6}{eps:<8g}{100 * stands:6.1f} % stand, under minimum_norm "
                f"{100 * other:5.1f} %, under both {100 * (stands - gap):5.1f} %, {count} images\n"
            )
    table = pd.DataFrame(lines, columns=["gap", "model", "suite", "norm", "eps", "stands", "other", "count"])
    for (suite, norm), gaps in table.groupby(["suite", "norm"])["gap"]:
        sys.stdout.write(
            f"{suite}, {NORM_LABELS[norm]}: {100 * gaps.mean():.1f} points too high in the mean of {len(gaps)} models and "
            f"radii, at most {100 * gaps.max():.1f}\n"
        )


if __name__ == "__main__":
    typer.run(main)
