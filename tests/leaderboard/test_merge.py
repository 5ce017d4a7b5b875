from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.core.errors import BenchError
from bench.leaderboard.merge import merge_leaderboards
from bench.leaderboard.table import append_rows, read_leaderboard
from tests.leaderboard.rows import row


def board(folder: Path, *runs: str, **changes: object) -> Path:
    for run in runs:
        append_rows(folder, [row(run, eps=eps, **changes) for eps in (0.1, None)])
        (folder / "runs" / run).mkdir(parents=True)
        (folder / "runs" / run / "manifest.json").write_text(json.dumps({"run_id": run}))
    return folder


def test_runs_are_copied_once_with_their_evidence(tmp_path: Path) -> None:
    first, second = board(tmp_path / "a", "one", "two"), board(tmp_path / "b", "two", "three")
    into = tmp_path / "all"
    outcomes = merge_leaderboards([first, second], into)
    assert [(one.added, one.known) for one in outcomes] == [(2, 0), (1, 1)]
    rows = read_leaderboard(into)
    assert rows["run_id"].value_counts().to_dict() == {"one": 2, "two": 2, "three": 2}
    assert sorted(path.name for path in (into / "runs").iterdir()) == ["one", "three", "two"]
    again = merge_leaderboards([first, second], into)
    assert [one.added for one in again] == [0, 0] and len(read_leaderboard(into)) == 6
    one = read_leaderboard(first)
    assert rows[rows["run_id"].isin(one["run_id"])].reset_index(drop=True).equals(one)


def test_rows_that_conflict_are_reported_and_nothing_is_merged(tmp_path: Path) -> None:
    first, second = board(tmp_path / "a", "one"), board(tmp_path / "b", "zero", "one", value=0.75)
    before = (first / "leaderboard.csv").read_bytes()
    with pytest.raises(BenchError, match=r"run one of .* conflicts .* differ in value; nothing was merged"):
        merge_leaderboards([second], first)
    assert (first / "leaderboard.csv").read_bytes() == before
    assert not (first / "runs" / "zero").exists()
