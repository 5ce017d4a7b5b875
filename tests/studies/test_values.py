from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench.catalog.locations import shipped
from bench.leaderboard.evidence.records import read_records, write_records
from bench.leaderboard.table import read_leaderboard
from bench.studies.names import MetricName
from bench.studies.values import MissingInputError, Values


def test_rows_that_are_not_what_their_records_say_are_no_evidence(tmp_path: Path) -> None:
    """Committed evidence with a row, or records, that somebody made better."""
    rows = read_leaderboard(shipped("leaderboard"))
    rows = rows[(rows["model"] == "standard") & (rows["dataset"] == "fashion_mnist")]
    clean, retrained = (rows[rows["suite"] == suite] for suite in ("clean", "roar_quick"))
    for run in {*clean["run_id"], *retrained["run_id"]}:
        shutil.copytree(shipped("leaderboard") / "runs" / run, tmp_path / "runs" / run)
    accuracy = MetricName.model_validate({"suite": "clean", "metric": "clean_accuracy"})
    assert Values(tmp_path, clean).images(accuracy, "standard") is not None
    with pytest.raises(MissingInputError, match="is not what the records of its run say"):
        Values(tmp_path, clean.assign(value=clean["value"] + 0.01)).images(accuracy, "standard")
    subject = retrained[retrained["metric"] == "roar_score"]["subject"].iloc[0]
    score = MetricName.model_validate({"suite": "roar_quick", "metric": "roar_score", "subject": subject})
    assert Values(tmp_path, retrained).images(score, "standard") is not None
    path = tmp_path / "runs" / retrained["run_id"].iloc[-1] / "examples.parquet"
    write_records(path, read_records(path).iloc[::-1])
    with pytest.raises(MissingInputError, match=f"roar score {subject}"):
        Values(tmp_path, retrained).images(score, "standard")
