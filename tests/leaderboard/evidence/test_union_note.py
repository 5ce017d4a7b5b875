from __future__ import annotations

import shutil
from pathlib import Path

from bench.leaderboard.table import append_rows, read_leaderboard
from bench.reporting.leaderboard_page import make_report
from tests.conftest import Bench

SHIPPED = Path(__file__).parents[3] / "leaderboard"


def test_the_radii_of_a_union_are_said_also_where_the_evidence_of_the_best_model_is_not_there(
    bench: Bench, tmp_path: Path
) -> None:
    rows = read_leaderboard(SHIPPED)
    of_suite = rows[(rows["suite"] == "cross_norm") & (rows["dataset"] == "cifar10")]
    union = of_suite[of_suite["metric"] == "union_accuracy"].sort_values("value", ascending=False)
    best, worst = union["run_id"].iloc[0], union["run_id"].iloc[-1]
    append_rows(tmp_path, of_suite[of_suite["run_id"].isin([best, worst])].to_dict("records"))
    shutil.copytree(SHIPPED / "runs" / worst, tmp_path / "runs" / worst)
    assert "union of L-inf 8/255, L2 0.5, L1 12" in bench("leaderboard", "--leaderboard", tmp_path)[1]
    page = tmp_path / "page.html"
    make_report(tmp_path, page, images=0, plain=True)
    said = page.read_text()
    assert "union of L-inf 8/255, L2 0.5, L1 12" in said and "robust accuracy, L2 0.5" in said
