from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from bench.leaderboard.prune import remove_runs, superseded_runs
from bench.leaderboard.table import append_rows, read_leaderboard
from tests.conftest import Bench
from tests.leaderboard.rows import row


def board(folder: Path) -> Path:
    made: list[tuple[str, dict[str, object]]] = [
        ("old_version", {"suite_version": 1}),
        ("named_by_a_study", {"suite_version": 1}),
        ("first", {"suite_version": 2}),
        ("repeated", {"suite_version": 2}),
        ("few_images", {"suite_version": 2, "n_examples": 3}),
        ("other_seed", {"suite_version": 2, "seed": 1}),
        ("other_device", {"suite_version": 2, "device": "cuda"}),
        ("other_precision", {"suite_version": 2, "precision": "bfloat16"}),
        ("other_weights", {"suite_version": 2, "model_sha256": "d" * 64}),
        ("other_parameters", {"suite_version": 2, "suite_sha256": "e" * 64}),
        ("other_images", {"suite_version": 2, "data_sha256": "f" * 64}),
        ("other_model", {"suite_version": 1, "model": "at_l2"}),
        ("old_other_weights", {"suite_version": 1, "model_sha256": "1" * 64}),
        ("old_other_seed", {"suite_version": 1, "seed": 7}),
        ("old_other_precision", {"suite_version": 1, "precision": "float16"}),
        ("old_other_images", {"suite_version": 1, "data_sha256": "2" * 64}),
        ("old_many_images", {"suite_version": 1, "n_examples": 101}),
        ("other_suite", {"suite_version": 1, "suite": "autoattack"}),
    ]
    for day, (run, changes) in enumerate(made, start=1):
        at = f"2026-01-{day:02d}T00:00:00+00:00"
        append_rows(folder, [row(run, eps=eps, finished_at=at, **changes) for eps in (0.1, None)])
        (folder / "runs" / run).mkdir(parents=True)
        (folder / "runs" / run / "manifest.json").write_text("{}")
    (folder / "studies" / "ir").mkdir(parents=True)
    (folder / "studies" / "ir" / "plan.json").write_text(json.dumps({"runs": ["named_by_a_study"]}))
    return folder


def test_older_versions_and_repeated_runs_are_superseded_and_nothing_else(tmp_path: Path) -> None:
    found = {run.run_id: run.by for run in superseded_runs(board(tmp_path))}
    assert found == {"old_version": "other_parameters", "first": "repeated"}


def test_what_others_images_have_lowered_stays_whatever_is_run_later(tmp_path: Path) -> None:
    for run, version, attack in (("theirs", 1, "external:x"), ("plain", 1, "sweep"), ("new", 2, "sweep")):
        append_rows(tmp_path, [row(run, suite_version=version, attack=attack)])
    assert [run.run_id for run in superseded_runs(tmp_path)] == ["plain"]


def test_a_run_that_kept_its_images_stays_until_a_later_one_keeps_some(tmp_path: Path) -> None:
    folder = board(tmp_path)
    (folder / "runs" / "first" / "adversarial.npz").touch()
    assert [run.run_id for run in superseded_runs(folder)] == ["old_version"]
    (folder / "runs" / "repeated" / "adversarial.npz").touch()
    assert [run.run_id for run in superseded_runs(folder)] == ["old_version", "first"]


def test_pruning_shows_first_and_removes_rows_and_evidence_when_told_to(bench: Bench, tmp_path: Path) -> None:
    folder = board(tmp_path / "board")
    before = read_leaderboard(folder)
    code, out, _ = bench("leaderboard", "prune", "--leaderboard", str(folder))
    assert code == 0 and "2 runs" in out and "--yes removes them" in out
    assert read_leaderboard(folder).equals(before)
    code, out, _ = bench("leaderboard", "prune", "--leaderboard", str(folder), "--yes")
    assert code == 0 and "2 runs" in out and "removed" in out
    gone = {"old_version", "first"}
    after = read_leaderboard(folder)
    assert after.equals(before[~before["run_id"].isin(gone)].reset_index(drop=True))
    assert {path.name for path in (folder / "runs").iterdir()} == set(before["run_id"]) - gone
    assert "0 runs" in bench("leaderboard", "prune", "--leaderboard", str(folder))[1]


def test_rows_go_with_their_evidence_also_where_a_spreadsheet_has_quoted_all_cells(tmp_path: Path) -> None:
    board(tmp_path)
    path = tmp_path / "leaderboard.csv"
    lines = list(csv.reader(path.read_text().splitlines()))
    with path.open("w", newline="") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows(lines)
    remove_runs(tmp_path, {"first"})
    assert "first" not in set(read_leaderboard(tmp_path)["run_id"]) and not (tmp_path / "runs" / "first").exists()


def test_a_study_that_cannot_be_read_and_evidence_that_cannot_be_removed_are_said_in_one_line(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board(tmp_path)
    prune = ("leaderboard", "prune", "--leaderboard", tmp_path, "--yes")
    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", lambda path: (path / "nowhere").rmdir())
        assert "cannot write" in bench.refused(*prune)
    (tmp_path / "studies" / "odd" / "plan.json").mkdir(parents=True)
    assert "cannot read the study's plan" in bench.refused(*prune)
