"""The store under fire: runs killed at any moment, two at once, and evidence that someone changed."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import pytest

from bench.comparison.compare import compare_models
from bench.comparison.evidence import row_values, run_values
from bench.core.errors import BenchError
from bench.leaderboard.evidence.manifest import read_manifest
from bench.leaderboard.metrics import KEY_COLUMNS
from bench.leaderboard.table import read_leaderboard
from tests.conftest import TINY_SUITE, Bench
from tests.executors.processes import ForkedProcess, start_bench
from tests.runs.test_execute import run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two models under the tiny suite."""
    board = tmp_path_factory.mktemp("finished")
    (board / "tiny.toml").write_text(TINY_SUITE)
    for model in ("standard", "at_linf"):
        run(board, board / "tiny.toml", models=[model])
    return board


@pytest.fixture
def board(finished: Path, tmp_path: Path) -> Path:
    """A copy of them, to be damaged."""
    return shutil.copytree(finished, tmp_path / "board")


def run_of(board: Path, model: str) -> Path:
    rows = read_leaderboard(board)
    return board / "runs" / rows.loc[rows["model"] == model, "run_id"].iloc[0]


def start(folder: Path, suite: Path) -> ForkedProcess:
    return start_bench("run", "--model", "standard", "--suite", suite, "--leaderboard", folder, "--device", "cpu")


def settle(folder: Path, suite: Path) -> None:
    """What must hold however often runs were killed: all is readable, no row lost or doubled, resume completes."""
    run(folder, suite)
    rows = read_leaderboard(folder)
    begun = {path for path in (folder / "runs").iterdir() if (path / "manifest.json").exists()}
    for path in set((folder / "runs").iterdir()) - begun:  # killed before its first word: it has nothing to be read
        assert not list(path.glob("**/*.parquet"))
    finished = {path.name for path in begun if read_manifest(path).status == "finished"}
    assert set(rows["run_id"]) == finished
    assert not rows.duplicated(["run_id", *KEY_COLUMNS]).any()
    assert set(rows["run_id"].value_counts()) == {len(rows) // len(finished)}
    for run_id in finished:
        own = rows[rows["run_id"] == run_id]
        assert len(row_values(folder / "runs" / run_id, own)) == len(own)


def kill_at_random(folder: Path, suite: Path, times: int, seed: int) -> None:
    random_delay = random.Random(seed)
    for _ in range(times):
        process = start(folder, suite)
        while process.is_alive() and not list(folder.glob("runs/*")):
            time.sleep(0.01)
        time.sleep(random_delay.uniform(0.0, 0.8))
        process.kill()
        process.join()


def test_runs_killed_at_random_moments_leave_a_sound_leaderboard(tmp_path: Path, tiny_suite: Path) -> None:
    kill_at_random(tmp_path / "board", tiny_suite, times=2, seed=0)
    settle(tmp_path / "board", tiny_suite)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_kills_leave_a_sound_leaderboard(tmp_path: Path, tiny_suite: Path) -> None:
    kill_at_random(tmp_path / "board", tiny_suite, times=50, seed=1)
    settle(tmp_path / "board", tiny_suite)


def test_two_runs_at_once_both_arrive(tmp_path: Path, tiny_suite: Path) -> None:
    processes = [start(tmp_path, tiny_suite) for _ in range(2)]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert read_leaderboard(tmp_path)["run_id"].nunique() == 2


@pytest.mark.parametrize("damage", ["edited", "truncated", "missing"])
def test_changed_evidence_is_named(board: Path, damage: str) -> None:
    folder = run_of(board, "standard")
    path = folder / "examples.parquet"
    assert run_values(folder)
    if damage == "edited":
        import pandas as pd

        records = pd.read_parquet(path)
        records.loc[0, "broken"] = ~records.loc[0, "broken"]
        records.to_parquet(path)
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-20])
    else:
        path.unlink()
    with pytest.raises(BenchError, match=r"examples\.parquet is (not what the run wrote|missing)"):
        run_values(folder)


def test_every_row_of_a_run_is_the_mean_of_its_values_by_example(board: Path) -> None:
    folder, rows = run_of(board, "standard"), read_leaderboard(board)
    rows = rows[rows["model"] == "standard"]
    assert len(row_values(folder, rows)) == len(rows)
    changed = rows.assign(value=rows["value"] + 0.01)
    assert row_values(folder, changed) == {}


def test_two_models_are_compared_on_the_runs_they_share(board: Path, tiny_suite: Path) -> None:
    run(board, tiny_suite, models=["at_linf"], seed=1)
    (found,), skipped = compare_models("standard", "fashion_mnist/at_linf", board)
    assert skipped == [] and found.doubts == ("", "")
    robust = next(one for one in found.comparisons if (one.key.norm, one.key.eps) == ("linf", 0.1))
    assert robust.difference > 0.5 and robust.p_value < 0.01 and len(robust.gained) >= 10
    assert found.unpaired == []
    with pytest.raises(BenchError, match="did you mean standard"):
        compare_models("stndard", "at_linf", board)
    shutil.rmtree(board / "runs" / found.runs[0])
    with pytest.raises(BenchError, match="missing"):
        compare_models("standard", "at_linf", board)


def test_the_command_draws_the_flipped_examples(bench: Bench, board: Path) -> None:
    common = ("compare", "standard", "at_linf", "--leaderboard", board)
    code, shown, _ = bench(*common, "--images", board / "p.png")
    assert code == 0 and "only at_linf" in shown and (board / "p.png").read_bytes().startswith(b"\x89PNG")
    paper = ("--metric", "clean", "--metric", "L-inf *", "--columns", "at_linf, difference", "--no-intervals")
    code, shown, _ = bench(*common, *paper, "--format", "latex")
    assert code == 0 and "metric & at\\_linf & difference \\\\" in shown and "[" not in shown.split("\n", 1)[1]
    assert "\\multicolumn{3}{l}{$L_\\infty$}" in shown and "L_2" not in shown and "union &" not in shown
    assert "did you mean clean" in bench.refused(*common, "--metric", "claen")
    assert "did you mean difference" in bench.refused(*common, "--columns", "diference")
