from __future__ import annotations

import csv
import errno
import multiprocessing
import os
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock

from bench.core.errors import BenchError
from bench.leaderboard.boards import make_boards
from bench.leaderboard.rows import COLUMNS
from bench.leaderboard.table import (
    append_rows,
    check_leaderboard,
    of_newest_versions,
    read_leaderboard,
    select_rows,
)
from bench.reporting.diagnostics import _leaderboard
from tests.conftest import Bench
from tests.leaderboard.rows import row

DESIGN = (
    "run_id, finished_at, model, method, dataset, split, suite, suite_version, metric, subject, attack, norm, eps, value, "
    "ci_low, ci_high, n_examples, direction, unit, prominence, seed, model_sha256, data_sha256, suite_sha256, dependencies_sha256, bench_version, commit, "
    "torch_version, device, precision, seconds, schema_version"
)


def test_the_columns_are_the_published_ones_in_their_order(tmp_path: Path) -> None:
    append_rows(tmp_path, [row()])
    assert list(pd.read_csv(tmp_path / "leaderboard.csv").columns) == DESIGN.split(", ") == list(COLUMNS)


def test_what_was_appended_is_read_back_typed(tmp_path: Path) -> None:
    append_rows(tmp_path, [row("a", metric="clean_accuracy", attack="", norm="", eps=None, value=0.9125), row("a")])
    rows = read_leaderboard(tmp_path)
    assert rows["value"].tolist() == [0.9125, 0.5]
    assert rows["eps"].isna().tolist() == [True, False]
    assert rows["attack"].tolist() == ["", "sweep"]
    assert rows["n_examples"].dtype.kind == "i"


def _append_many(folder: Path, worker: int) -> None:
    for index in range(12):
        append_rows(folder, [row(f"run-{worker}-{index}", eps=eps) for eps in (0.1, 0.2)])


def test_eight_processes_appending_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append_many, args=(tmp_path, worker)) for worker in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 8
    rows = read_leaderboard(tmp_path)
    assert len(rows) == 8 * 12 * 2
    assert set(rows["run_id"].value_counts()) == {2}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "leaderboard.csv"]


def test_a_run_that_is_written_again_replaces_its_rows(tmp_path: Path) -> None:
    append_rows(tmp_path, [row("a", eps=0.1), row("a", eps=0.2), row("c")])
    append_rows(tmp_path, [row("a", seconds=7.0), row("b")])
    rows = read_leaderboard(tmp_path)
    assert rows["run_id"].tolist() == ["c", "a", "b"] and rows["seconds"].iloc[1] == 7.0


def test_rows_are_appended_never_rewritten(tmp_path: Path) -> None:
    append_rows(tmp_path, [row("a")])
    before = (tmp_path / "leaderboard.csv").read_text()
    append_rows(tmp_path, [row("b")])
    assert (tmp_path / "leaderboard.csv").read_text().startswith(before)


@pytest.mark.parametrize("content", ["a,b\n1,2\n", ",".join(COLUMNS[:-2]) + "\n", ",".join(reversed(COLUMNS)) + "\n"])
def test_a_file_with_foreign_columns_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "leaderboard.csv"
    path.write_text(content)
    for use in (
        lambda: append_rows(tmp_path, [row()]),
        lambda: read_leaderboard(tmp_path),
        lambda: check_leaderboard(tmp_path),
    ):
        with pytest.raises(BenchError, match="does not have the leaderboard's columns"):
            use()
    assert path.read_text() == content


def test_a_full_disk_leaves_the_leaderboard_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append_rows(tmp_path, [row("a")])
    before = (tmp_path / "leaderboard.csv").read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BenchError, match="disk is full"):
        append_rows(tmp_path, [row("b")])
    assert (tmp_path / "leaderboard.csv").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "leaderboard.csv"]


def test_a_missing_leaderboard_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="bench run"):
        read_leaderboard(tmp_path)


def test_a_leaderboard_that_is_a_folder_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "leaderboard.csv").mkdir()
    for read in (read_leaderboard, check_leaderboard, _leaderboard):
        with pytest.raises(BenchError, match=r"leaderboard\.csv is a folder; move it away or name another folder\."):
            read(tmp_path)


def test_a_leaderboard_without_rows_says_so(tmp_path: Path, bench: Bench) -> None:
    (tmp_path / "leaderboard.csv").touch()
    assert "has no rows yet; make some with `bench run`." in bench.refused("leaderboard", "--leaderboard", tmp_path)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_file_of_an_older_version_is_read_and_goes_on_as_of_this_one(tmp_path: Path, version: int) -> None:
    path = tmp_path / "leaderboard.csv"
    later = {"subject", "direction", "unit", "prominence"} | ({"schema_version"} if version == 1 else set())
    later |= {"dependencies_sha256", "commit", "precision"} if version < 3 else set()
    old = [name for name in COLUMNS if name not in later]
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, old, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for run_id, device in (("a", "cpu"), ("b", "cuda (H100, 80GB), bfloat16 search")):
            writer.writerow({**row(run_id, device=device, attack="'=odd, name"), "schema_version": version})
    append_rows(tmp_path, [row("c", precision="tf32")])
    rows = read_leaderboard(tmp_path)
    if version < 3:
        assert rows["device"].tolist() == ["cpu", "cuda (H100, 80GB)", "cpu"]
        assert rows["precision"].tolist() == ["float32", "bfloat16", "tf32"]
    assert rows["attack"].tolist() == ["=odd, name", "=odd, name", "sweep"]
    assert rows["value"].tolist() == [0.5] * 3 and set(rows["dependencies_sha256"]) == set(rows["commit"]) == {""}
    assert list(pd.read_csv(path).columns) == list(COLUMNS) and set(pd.read_csv(path)["schema_version"]) == {5}


@pytest.mark.parametrize("version", [4, 5])
def test_digests_that_are_whole_are_read_and_go_on_as_their_first_digits(tmp_path: Path, version: int) -> None:
    path, commit = tmp_path / "leaderboard.csv", "0123456789abcdef" + "0" * 24
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerow({**row("old", commit=f"{commit}-dirty"), "schema_version": version})
    append_rows(tmp_path, [row("new", commit=commit)])
    rows = read_leaderboard(tmp_path)
    assert set(rows["model_sha256"]) == {"a" * 16} and set(rows["suite_sha256"]) == {"c" * 16}
    assert rows["commit"].tolist() == ["0123456789abcdef-dirty", "0123456789abcdef"]
    whole = "a" * 64 in path.read_text()
    assert whole == (version == 5), "a file of an older version is written anew, what stands in one of this is left"


def test_a_damaged_row_of_an_older_file_is_named(tmp_path: Path) -> None:
    old = [name for name in COLUMNS if name not in ("subject", "direction", "unit", "prominence")]
    (tmp_path / "leaderboard.csv").write_text(",".join(old) + "\nrun-7,2026\n")
    with pytest.raises(BenchError, match=r"damaged row \(line 2, run 'run-7': 2 cells, not 28\)"):
        read_leaderboard(tmp_path)


def test_a_row_that_is_cut_short_and_a_value_that_is_none_are_said_in_plain_words(tmp_path: Path) -> None:
    append_rows(tmp_path, [row("a"), row("b", value=0.25)])
    path, text = tmp_path / "leaderboard.csv", (tmp_path / "leaderboard.csv").read_text()
    for damaged, said in (
        (text[:-40], rf"line 3, run 'b': \d+ cells, not {len(COLUMNS)}"),
        (text.replace(",0.25,", ",nan,"), "value of row 2, run 'b': nan is no result; a cell is empty where"),
    ):
        path.write_text(damaged)
        with pytest.raises(BenchError, match=said):
            read_leaderboard(tmp_path)


def test_a_lock_that_somebody_keeps_gives_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.core.files.LOCK_SECONDS", 0.1)
    with FileLock(tmp_path / ".lock"), pytest.raises(BenchError, match=r"another process has held .*end it"):
        append_rows(tmp_path, [row()])


def test_two_commands_that_look_whether_a_folder_can_be_written_do_not_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def look_too(**where: Path) -> object:
        tried.append(where)
        if len(tried) == 1:
            check_leaderboard(tmp_path)  # a second one, while the first is at it
        return temporary_file(**where)

    temporary_file = tempfile.TemporaryFile
    monkeypatch.setattr("tempfile.TemporaryFile", look_too)
    check_leaderboard(tmp_path)
    assert len(tried) == 2 and list(tmp_path.iterdir()) == []


def test_a_file_from_the_future_is_refused_and_left_alone(tmp_path: Path) -> None:
    append_rows(tmp_path, [row("a")])
    path = tmp_path / "leaderboard.csv"
    path.write_text(path.read_text().replace(",5\n", ",6\n"))
    before = path.read_bytes()
    for use in (lambda: read_leaderboard(tmp_path), lambda: append_rows(tmp_path, [row("b")])):
        with pytest.raises(BenchError, match=r"version 6, this RIBench knows versions up to 5; upgrade"):
            use()
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["=1+1", "+1", "-cmd", "@SUM(A1)", '=HYPERLINK("x","y")', "plain", "it's"])
def test_no_text_becomes_a_formula_and_every_text_is_read_back(tmp_path: Path, text: str) -> None:
    append_rows(tmp_path, [row("a", attack=text, device=text)])
    with (tmp_path / "leaderboard.csv").open() as stream:
        cells = [cell for line in csv.reader(stream) for cell in line]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@")) or (cell.startswith("-") and "cmd" in cell)]
    rows = read_leaderboard(tmp_path)
    assert rows["attack"].tolist() == [text] == rows["device"].tolist()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("seed", str(1 << 63)), ("n_examples", "9" * 30), ("seed", "-1"), ("suite_version", "٣"), ("suite_version", "1.5"),
        ("eps", "-0.1"), ("eps", "inf"), ("eps", "1e400"), ("seconds", "inf"), ("seconds", "-1"), ("value", "-inf"),
        ("value", "half"), ("model", "a\x1b[31m"), ("attack", "a\x9bb"), ("metric", "a\0b"), ("suite", "a\nb"),
        ("device", "x" * 140_000), ("run_id", "../up"), ("schema_version", "²"),
    ],
)  # fmt: skip
def test_what_no_run_writes_is_a_damaged_row_for_reader_and_writer(tmp_path: Path, column: str, value: str) -> None:
    append_rows(tmp_path, [row("a")])
    path = tmp_path / "leaderboard.csv"
    with path.open(newline="") as stream:
        header, cells = list(csv.reader(stream))
    cells[header.index(column)] = value
    with path.open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([header, cells])
    with pytest.raises(BenchError, match="damaged row") as caught:
        read_leaderboard(tmp_path)
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)
    if column != "schema_version" and len(value) < 1000:
        with pytest.raises(BenchError, match=f"cannot be written to .*: {column} of row 1"):
            append_rows(tmp_path / "other", [{**row("b"), column: value}])
        assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("value", [0.0, 1e-300, 1e300, float("inf"), float("nan"), None])
def test_whatever_number_is_accepted_can_be_read_again(tmp_path: Path, value: float | None) -> None:
    append_rows(tmp_path, [row("a", value=value, ci_low=None, seed=(1 << 63) - 1, n_examples=1, seconds=0.0)])
    (read,) = read_leaderboard(tmp_path).to_dict("records")
    assert read["value"] == (pytest.approx(float("nan") if value is None else value, nan_ok=True))
    assert read["seed"] == (1 << 63) - 1 and read["ci_low"] != read["ci_low"]


def test_a_file_that_a_spreadsheet_has_saved_is_read_and_gone_on_with(tmp_path: Path) -> None:
    append_rows(tmp_path, [row("a")])
    path = tmp_path / "leaderboard.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    append_rows(tmp_path, [row("a"), row("b")])
    assert read_leaderboard(tmp_path)["run_id"].tolist() == ["a", "b"]


def test_a_suite_is_selected_by_its_name_or_one_version_of_it(tmp_path: Path) -> None:
    append_rows(tmp_path, [row(f"r{version}", suite_version=version) for version in (2, 3, 12)])
    append_rows(tmp_path, [row("other", suite="clean", suite_version=3)])
    rows = read_leaderboard(tmp_path)

    def selected(*names: str) -> set[str]:
        return set(select_rows(rows, suite=names)["run_id"])

    suite = rows["suite"].iloc[0]
    assert selected(suite) == selected(f"{suite}@*") == {"r2", "r3", "r12"}
    assert selected(f"{suite}@2") == {"r2"}
    assert selected(f"{suite}@3", "clean") == {"r3", "other"}
    with pytest.raises(BenchError, match=f"unknown suite '{suite}@4'; did you mean {suite}@"):
        selected(f"{suite}@4")


def test_the_newest_version_of_a_suite_has_the_first_board(tmp_path: Path) -> None:
    append_rows(tmp_path, [row(f"r{version}", suite_version=version, model=f"m{version}") for version in (2, 3, 12)])
    boards = make_boards(of_newest_versions(read_leaderboard(tmp_path)))
    assert [board.shared["suite_version"] for board in boards] == [12, 3, 2]


def test_a_trial_of_the_next_version_hides_no_run_on_more_images(tmp_path: Path) -> None:
    runs = [("r3", 3, 100), ("r4", 4, 100), ("r5", 5, 2)]
    for run, version, examples in runs:
        correct = row(run, suite_version=version, n_examples=1, eps=0.2)
        append_rows(tmp_path, [row(run, suite_version=version, n_examples=examples), correct])
    rows = read_leaderboard(tmp_path)
    assert of_newest_versions(rows)["run_id"].tolist() == ["r4", "r4", "r5", "r5"]
    assert of_newest_versions(rows[:0]).empty
