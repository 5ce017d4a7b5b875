"""What docs/cheating.md promises: whoever edits a leaderboard or its evidence is told on by all that read it."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.core.files import sha256_file
from bench.leaderboard.evidence.doubts import board_doubts
from bench.leaderboard.table import read_leaderboard
from bench.runs.execute import execute
from bench.runs.plan import RunRequest, plan_runs
from tests.conftest import TINY_SUITE, Bench


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suite") / "tiny.toml"
    path.write_text(TINY_SUITE.replace("examples = 20", "examples = 60"))
    return path


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory, suite: Path) -> Path:
    folder = tmp_path_factory.mktemp("honest") / "board"
    for plan in plan_runs(RunRequest(["standard", "at_linf"], [str(suite)], folder, device="cpu")):
        execute(plan, folder)
    return folder


@pytest.fixture
def board(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "board"))


def run_of(board: Path, model: str = "standard") -> Path:
    (folder,) = (board / "runs").glob(f"*-{model}-*")
    return folder


def edit_rows(board: Path, edit: Callable[[dict[str, str]], bool]) -> None:
    """Rows of `standard` for which `edit` returns True stay, as it left them."""
    path = board / "leaderboard.csv"
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    kept = [row for row in rows if row["model"] != "standard" or edit(row)]
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)


def set_in_row(board: Path, column: str, value: str, metric: str = "robust_accuracy") -> None:
    def edit(row: dict[str, str]) -> bool:
        if row["metric"] == metric or column != "value":
            row[column] = value
        return True

    edit_rows(board, edit)


def edit_manifest(board: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    path = run_of(board) / "manifest.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def set_metric(manifest: dict[str, Any]) -> None:
    metrics = manifest["result"]["metrics"]
    names = zip(metrics["metric"], metrics["value"], strict=True)
    metrics["value"] = [0.95 if name == "robust_accuracy" else value for name, value in names]


def unbreak(board: Path) -> None:
    path = run_of(board) / "examples.parquet"
    pd.read_parquet(path).assign(broken=False).to_parquet(path)


def take_anothers(board: Path) -> None:
    shutil.rmtree(run_of(board))
    shutil.copytree(run_of(board, "at_linf"), board / "runs" / read_leaderboard(board)["run_id"].iloc[0])


TAMPERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a value": (lambda board: set_in_row(board, "value", "0.95"), "value of robust_accuracy sweep linf 0.05 is 0.95, was"),
    "an interval": (lambda board: set_in_row(board, "ci_low", "0.9"), "ci_low of clean_accuracy is 0.9, was"),
    "a row less": (lambda board: edit_rows(board, lambda row: row["norm"] != "linf"), "2 metrics are missing"),
    "a newer date": (lambda board: set_in_row(board, "finished_at", "2099-01-01"), "finished_at is 2099-01-01, was"),
    "another seed": (lambda board: set_in_row(board, "seed", "7"), "seed is 7, was 0"),
    "other weights": (lambda board: set_in_row(board, "model_sha256", "0" * 64), "model_sha256 is 0000"),
    "the manifest": (lambda board: edit_manifest(board, set_metric), "value of robust_accuracy sweep linf 0.05 is"),
    "the records": (unbreak, "is not what the run wrote"),
    "another run's evidence": (take_anothers, "run_id is"),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERS)
def test_rows_that_do_not_match_their_evidence_are_named(board: Path, what: str) -> None:
    tamper, said = TAMPERS[what]
    tamper(board)
    (doubt,) = board_doubts(board, read_leaderboard(board))
    assert said in doubt and run_of(board, "standard").name in doubt


def test_an_honest_board_is_not_doubted(board: Path) -> None:
    assert board_doubts(board, read_leaderboard(board)) == []


def test_every_reader_says_which_rows_were_edited(bench: Bench, board: Path, tmp_path: Path) -> None:
    set_in_row(board, "value", "0.95")
    run_id = run_of(board).name
    said = f"the rows of run {run_id} are not what it wrote"
    at = ("--leaderboard", board)
    assert said in bench("leaderboard", *at)[2]
    assert said in bench("compare", "standard", "at_linf", *at)[2]
    assert said in bench("plot", *at, "--output", tmp_path / "plot.svg")[2]
    code, out, _ = bench("doctor", *at)
    assert code == 2 and "1 of 2 runs" in out and run_id in out
    code, _, err = bench("report", *at, "--output", tmp_path / "page.html", "--no-saliency", "--plain")
    assert code == 0 and said in err and said in (tmp_path / "page.html").read_text()


def test_records_with_an_example_twice_make_no_sense_and_are_said_to(bench: Bench, board: Path) -> None:
    path = run_of(board) / "examples.parquet"
    records = pd.read_parquet(path)
    pd.concat([records, records]).to_parquet(path)
    digest = sha256_file(path)
    edit_manifest(board, lambda manifest: manifest["result"].update(examples_sha256=digest))
    assert "an example comes twice" in bench.refused("compare", "standard", "at_linf", "--leaderboard", board)


def gate(bench: Bench, suite: Path, board: Path, *more: object) -> tuple[int, str, str]:
    common = ("--suite", suite, "--baseline", board, "--device", "cpu", "--time-factor", 0, *more)
    code, out, err = bench("check", "--model", "standard", *common)
    return code, " ".join(out.split()), err


def test_the_gate_fails_on_an_edited_baseline(bench: Bench, suite: Path, board: Path) -> None:
    set_in_row(board, "value", "0.0")
    code, out, _ = gate(bench, suite, board)
    assert code == 1 and "are not what it wrote: value of robust_accuracy sweep linf 0.05 is 0, was" in out


def test_the_gate_computes_the_baseline_again_where_rows_and_manifest_agree(
    bench: Bench, suite: Path, board: Path
) -> None:
    set_in_row(board, "value", "0.95")
    edit_manifest(board, set_metric)
    assert board_doubts(board, read_leaderboard(board)) == []
    code, out, _ = gate(bench, suite, board)
    assert code == 1 and "are not what its records say: robust_accuracy sweep linf 0.05 is 0.95" in out


def test_the_gate_refuses_records_that_were_exchanged(bench: Bench, suite: Path, board: Path) -> None:
    unbreak(board)
    code, _, err = gate(bench, suite, board)
    assert code == 2 and "is not what the run wrote" in err


def test_records_forged_with_their_digest_do_not_pass_for_the_models(bench: Bench, suite: Path, board: Path) -> None:
    """Nothing in the folder can tell, but the model can: the gate runs it again."""
    unbreak(board)
    edit_manifest(board, set_metric)
    digest = sha256_file(run_of(board) / "examples.parquet")
    edit_manifest(board, lambda manifest: manifest["result"].update(examples_sha256=digest))
    set_in_row(board, "value", "0.95")
    code, out, _ = gate(bench, suite, board)
    assert code == 1 and "robust_accuracy" in out


def test_what_the_baseline_has_and_nobody_looked_at_is_said_and_fails_where_asked(
    bench: Bench, suite: Path, board: Path
) -> None:
    code, out, _ = gate(bench, suite, board)
    assert code == 0 and "note: of the baseline not compared: model fashion_mnist/at_linf" in out
    code, out, _ = gate(bench, suite, board, "--strict")
    assert code == 1 and "failure: of the baseline not compared: model fashion_mnist/at_linf" in out


def test_a_suite_whose_evidence_is_of_another_version_hides_no_other(bench: Bench, board: Path, suite: Path) -> None:
    other = suite.with_name("older.toml")
    other.write_text(suite.read_text().replace('"tiny"', '"older"'))
    for plan in plan_runs(RunRequest(["standard", "at_linf"], [str(other)], board, device="cpu", examples=3)):
        outcome = execute(plan, board)
        path = outcome.folder / "manifest.json"
        manifest = json.loads(path.read_text())
        del manifest["suite"]["protocol"]
        path.write_text(json.dumps(manifest))
    code, out, err = bench("compare", "standard", "at_linf", "--leaderboard", board)
    assert code == 0 and "suite tiny version 1" in out and "warning older is not compared" in err
