from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from bench.leaderboard.migration import migrated_manifest, migrated_name, migrated_rows
from bench.leaderboard.rows import COLUMNS
from bench.leaderboard.table import append_rows, read_leaderboard
from tests.leaderboard.rows import row


@pytest.mark.parametrize(
    ("metric", "attack", "expected"),
    [
        ("robust_accuracy", "sweep", ("robust_accuracy", "", "sweep", "higher", "share")),
        ("stability/cosine/gradient", "uniform", ("stability/cosine", "gradient", "uniform", "higher", "number")),
        ("stability/centre_shift/a", "uniform", ("stability/centre_shift", "a", "uniform", "lower", "number")),
        ("taps/cosine/gradient", "frame", ("taps/cosine", "gradient", "frame", "lower", "number")),
        ("taps/centre_shift/gradient", "top_k", ("taps/centre_shift", "gradient", "top_k", "higher", "number")),
        ("taps_clean/cosine/gradient", "", ("taps_clean/cosine", "gradient", "", "descriptive", "number")),
        ("agreement/spearman/a/b", "", ("agreement/spearman", "a/b", "", "descriptive", "number")),
        ("prediction_kept/gradient", "frame", ("prediction_kept", "gradient", "frame", "descriptive", "share")),
        ("deletion/gradient", "", ("deletion", "gradient", "", "lower", "number")),
        ("deletion/random_order", "", ("deletion", "random_order", "", "descriptive", "number")),
        ("retrained_accuracy_30", "mask_only:a", ("retrained_accuracy", "mask_only:a/30", "", "descriptive", "share")),
        ("corruption_accuracy_5", "jpeg", ("corruption_accuracy", "jpeg/5", "", "higher", "share")),
        ("corruption_accuracy", "all", ("corruption_accuracy", "all", "", "higher", "share")),
        ("roar_score", "gradient", ("roar_score", "gradient", "", "higher", "number")),
        ("manifold_auroc", "fooled_itself", ("manifold_auroc", "fooled_itself", "", "descriptive", "number")),
        ("never_heard_of/a_7", "x", ("never_heard_of/a_7", "", "x", "descriptive", "number")),
        ("my_accuracy", "", ("my_accuracy", "", "", "descriptive", "share")),
    ],
)
def test_what_older_versions_called_a_metric_is_taken_apart(
    metric: str, attack: str, expected: tuple[str, ...]
) -> None:
    assert migrated_name(metric, attack)[:5] == expected


def old_board(folder: Path, eps: str, **columns: str) -> None:
    names = [name for name in COLUMNS if name not in ("subject", "direction", "unit", "prominence")]
    with (folder / "leaderboard.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerow({**row("run-1"), "schema_version": 3, "eps": eps, **columns})


@pytest.mark.parametrize(
    ("text", "figure"),
    [("0.0313725", 8 / 255), ("1.2549", 320 / 255), ("0.1", 0.1), ("0.123456", 0.123456), ("12", 12.0), ("", None)],
)
def test_a_rounded_radius_becomes_the_suites_own(tmp_path: Path, text: str, figure: float | None) -> None:
    old_board(tmp_path, text)
    assert [None if eps != eps else eps for eps in read_leaderboard(tmp_path)["eps"]] == [figure]


def test_a_rounded_radius_is_what_the_evidence_says_before_anything_else(tmp_path: Path) -> None:
    old_board(tmp_path, "0.0313725")
    folder = tmp_path / "runs" / "run-1"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"metrics": [{"eps": 0.03137251}, {"eps": None}]}))
    assert read_leaderboard(tmp_path)["eps"].tolist() == [0.03137251]


@pytest.mark.parametrize("content", ["", "[]", '{"metrics": 3}', '{"metrics": [3]}', "[" * 100_000])
def test_evidence_that_is_torn_does_not_hide_the_rows(tmp_path: Path, content: str) -> None:
    old_board(tmp_path, "0.0313725")
    folder = tmp_path / "runs" / "run-1"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(content)
    assert read_leaderboard(tmp_path)["eps"].tolist() == [8 / 255]


def test_no_evidence_is_looked_for_outside_the_leaderboard(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"metrics": [{"eps": 0.03137251}]}))
    cells = {**row(), "run_id": "../..", "eps": "0.0313725"}
    assert [found["eps"] for found in migrated_rows([cells], tmp_path / "board")] == [repr(8 / 255)]


def test_what_is_appended_to_an_older_file_keeps_its_radius_whole(tmp_path: Path) -> None:
    old_board(tmp_path, "0.0313725")
    append_rows(tmp_path, [row("new", eps=1 / 3)])
    assert read_leaderboard(tmp_path)["eps"].tolist() == [8 / 255, 1 / 3]


def test_an_older_manifest_says_of_the_precision_what_its_facts_do() -> None:
    assert migrated_manifest({"facts": {"search_precision": "tf32"}}) == {"metrics": [], "precision": "tf32"}
