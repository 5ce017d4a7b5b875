"""In how many verdicts the cascade and AutoAttack disagree, over every model that a leaderboard has under both.

    python benchmarks/strength/verdicts.py

From the evidence alone: nothing is attacked. A verdict is that of one image in one norm at the suite's reference radius.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import typer

from bench.core.threat import NORM_LABELS
from bench.leaderboard.evidence.records import read_records
from bench.leaderboard.table import of_newest_versions, read_leaderboard


def main(leaderboard: Path = Path("leaderboard")) -> None:
    """Print, by data set, what either alone breaks; then the comparisons in which the cascade leaves most and least."""
    rows = of_newest_versions(read_leaderboard(leaderboard)).sort_values("finished_at")
    rows = rows[rows["suite"].isin(["autoattack", "autoattack_fast"])]
    runs = rows.drop_duplicates(["dataset", "model", "model_sha256", "suite"], keep="last")
    pairs = runs.pivot(index=["dataset", "model", "model_sha256"], columns="suite", values="run_id").dropna()
    lines = []
    for (dataset, model, _), pair in pairs.iterrows():
        slow, fast = (_broken(leaderboard, pair[suite]) for suite in ("autoattack", "autoattack_fast"))
        for (norm, eps), images in fast.groupby(level=["norm", "eps"]):
            other = slow.reindex(images.index)
            alone = int((other & ~images).sum()), int((images & ~other).sum())
            lines.append((dataset, model, f"{NORM_LABELS[norm]} {eps:g}", len(images), *alone))
    table = pd.DataFrame(lines, columns=["dataset", "model", "ball", "verdicts", "autoattack_alone", "cascade_alone"])
    sums = table.groupby("dataset")[["verdicts", "autoattack_alone", "cascade_alone"]].sum()
    table["cascade_above"] = 100 * (table["autoattack_alone"] - table["cascade_alone"]) / table["verdicts"]
    table = table.sort_values("cascade_above", ascending=False)
    held = (table["cascade_above"] <= 0.1).sum()
    sys.stdout.write(f"{len(pairs)} models, {len(table)} comparisons, the cascade at most 0.1 points above in {held}\n")
    sys.stdout.write(f"{sums}\n{table.to_string(index=False)}\n")


def _broken(leaderboard: Path, run_id: str) -> pd.Series:
    """Whether any attack broke an image; index (norm, eps, example_id)."""
    records = read_records(leaderboard / "runs" / run_id / "examples.parquet")
    records = records[records["norm"] != "all"]
    return records.groupby(["norm", "eps", "example_id"], observed=True)["broken"].any()


if __name__ == "__main__":
    typer.run(main)
