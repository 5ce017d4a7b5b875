from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from bench.core.errors import BenchError
from bench.core.files import sha256_file
from bench.orchestration import RunOutcome, RunRequest, execute, plan_runs
from bench.results.leaderboard import read_leaderboard
from bench.results.runs import open_run, read_manifest
from tests.conftest import ModelCopy
from tests.orchestration.processes import descendants, require_gone

BROKEN = ["example_id", "attack", "norm", "eps", "broken"]


def run(folder: Path, suite: Path, **changes: object) -> RunOutcome:
    request = RunRequest(
        **{"models": ["standard"], "suites": [str(suite)], "leaderboard": folder, "device": "cpu", **changes}
    )  # type: ignore[arg-type]
    (plan,) = plan_runs(request)
    return execute(plan, folder, fresh=request.fresh)


def records(outcome: RunOutcome) -> pd.DataFrame:
    return pd.read_parquet(outcome.folder / "examples.parquet")


def test_a_run_leaves_evidence_manifest_and_rows_that_agree(tmp_path: Path, tiny_suite: Path) -> None:
    outcome = run(tmp_path, tiny_suite)
    manifest = read_manifest(outcome.folder)
    assert manifest["status"] == "finished"
    assert manifest["examples_sha256"] == sha256_file(outcome.folder / "examples.parquet")
    assert manifest["facts"]["model_sha256"] == outcome.plan.entry.card.weights.sha256
    rows = read_leaderboard(tmp_path)
    assert set(rows["run_id"]) == {outcome.run_id}
    evidence = records(outcome)
    for _, row in rows[rows["metric"] == "robust_accuracy"].iterrows():
        part = evidence[(evidence["norm"] == row["norm"]) & (evidence["eps"] == row["eps"])]
        assert row["value"] == pytest.approx(1 - part["broken"].mean(), abs=1e-6)
    assert sorted(path.name for path in outcome.folder.iterdir()) == ["examples.parquet", "manifest.json"]


def test_running_again_gives_the_same_records_and_new_rows(tmp_path: Path, tiny_suite: Path) -> None:
    first, second = run(tmp_path, tiny_suite), run(tmp_path, tiny_suite)
    assert first.run_id != second.run_id
    pd.testing.assert_frame_equal(records(first), records(second))
    assert read_leaderboard(tmp_path)["run_id"].nunique() == 2


def test_the_seed_changes_the_run_and_the_batch_size_does_not(tmp_path: Path, tiny_suite: Path) -> None:
    base = records(run(tmp_path, tiny_suite))
    other_batches = records(run(tmp_path, tiny_suite, batch_size=3))
    other_seed = records(run(tmp_path, tiny_suite, seed=1))
    pd.testing.assert_frame_equal(base[BROKEN], other_batches[BROKEN])
    assert not base["distance"].equals(other_seed["distance"])


SLOW_SUITE_CHANGES = {"steps = 5": "steps = 15", "examples = 20": "examples = 510", "patience = 1": "patience = 0"}


@pytest.fixture
def slow_suite(tiny_suite: Path) -> Path:
    content = tiny_suite.read_text()
    for old, new in SLOW_SUITE_CHANGES.items():
        content = content.replace(old, new)
    tiny_suite.write_text(content)
    return tiny_suite


def start(folder: Path, suite: Path, *options: str) -> subprocess.Popen[str]:
    """Start `bench run` with Ctrl-C enabled, which a shell's background job (so some CI) would hand down as ignored."""
    command = [sys.executable, "-m", "bench.cli.main", "run", "--model", "standard", "--suite", str(suite)]
    return subprocess.Popen(
        [*command, "--leaderboard", str(folder), "--device", "cpu", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_a_part(folder: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        # the manifest, not the part's own file, says that it is done
        if any(json.loads(path.read_text())["units"] for path in folder.glob("runs/*/manifest.json")):
            return
        assert process.poll() is None, f"ended too early: {process.communicate()}"
        time.sleep(0.05)
    raise AssertionError("no part was written in a minute")


def test_a_killed_run_resumes_and_gives_the_same_verdicts(tmp_path: Path, slow_suite: Path) -> None:
    killed = start(tmp_path / "killed", slow_suite, "--workers", "2")
    wait_for_a_part(tmp_path / "killed", killed)
    helpers = descendants(killed.pid)
    assert len(helpers) == 1
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    require_gone(helpers)
    (folder,) = (tmp_path / "killed" / "runs").iterdir()
    assert read_manifest(folder)["status"] == "running"
    assert not (tmp_path / "killed" / "leaderboard.csv").exists()

    resumed = run(tmp_path / "killed", slow_suite)
    assert resumed.resumed_units >= 1
    assert resumed.folder == folder
    whole = run(tmp_path / "whole", slow_suite)
    assert whole.resumed_units == 0
    pd.testing.assert_frame_equal(records(resumed)[BROKEN], records(whole)[BROKEN])
    assert read_leaderboard(tmp_path / "killed")["run_id"].unique().tolist() == [resumed.run_id]


def interrupt(process: subprocess.Popen[str], leaderboard: Path) -> Path:
    """Ctrl-C: the process ends as it should, and this is the folder of its run."""
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "what was done is kept" in error and "Traceback" not in error
    (folder,) = (leaderboard / "runs").iterdir()
    assert read_manifest(folder)["status"] == "interrupted"
    return folder


def test_ctrl_c_keeps_what_was_done_and_exits_with_130(tmp_path: Path, slow_suite: Path) -> None:
    process = start(tmp_path, slow_suite, "--workers", "2")
    wait_for_a_part(tmp_path, process)
    helpers = descendants(process.pid)
    assert len(helpers) == 1
    folder = interrupt(process, tmp_path)
    require_gone(helpers)
    assert list((folder / "parts").glob("*.parquet"))
    assert not (tmp_path / "leaderboard.csv").exists()
    assert run(tmp_path, slow_suite).resumed_units >= 1


def test_fresh_leaves_an_unfinished_run_alone(tmp_path: Path, tiny_suite: Path) -> None:
    (plan,) = plan_runs(RunRequest(["standard"], [str(tiny_suite)], tmp_path))
    unfinished = open_run(tmp_path, "x", plan.facts(), fresh=False, answers=plan.answers)
    unfinished.release()
    fresh = execute(plan, tmp_path, fresh=True)
    assert fresh.folder != unfinished.path
    resumed = execute(plan, tmp_path)
    assert resumed.folder == unfinished.path


def test_an_unfinished_run_that_another_process_holds_is_not_touched(tmp_path: Path, tiny_suite: Path) -> None:
    (plan,) = plan_runs(RunRequest(["standard"], [str(tiny_suite)], tmp_path))
    held = open_run(tmp_path, "x", plan.facts(), fresh=False, answers=plan.answers)
    child = subprocess.run(
        [sys.executable, "-m", "bench.cli.main", "run", "--model", "standard", "--suite", str(tiny_suite), "--leaderboard", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    held.release()
    assert child.returncode == 0, child.stderr
    assert len(list((tmp_path / "runs").iterdir())) == 2
    assert read_manifest(held.path)["status"] == "running"


def test_a_run_killed_between_its_rows_and_its_last_word_is_not_doubled(
    tmp_path: Path, tiny_suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.results import runs

    with monkeypatch.context() as patch:
        patch.setattr(runs.RunFolder, "finish", lambda self: (_ for _ in ()).throw(RuntimeError("killed here")))
        with pytest.raises(RuntimeError):
            run(tmp_path, tiny_suite)
    rows = len(read_leaderboard(tmp_path))
    outcome = run(tmp_path, tiny_suite)
    assert outcome.resumed_units == 1
    assert len(read_leaderboard(tmp_path)) == rows


def test_nothing_is_written_when_any_of_several_models_is_bad(
    tmp_path: Path, tiny_suite: Path, model_copy: ModelCopy
) -> None:
    model_copy.weights.write_bytes(b"rubbish")
    with pytest.raises(BenchError, match="do not match their card"):
        run(tmp_path / "board", tiny_suite, models=["standard", "copy"])
    assert not (tmp_path / "board").exists()


def test_the_manifest_is_valid_json_at_every_moment(tmp_path: Path, tiny_suite: Path) -> None:
    outcome = run(tmp_path, tiny_suite)
    manifest = json.loads((outcome.folder / "manifest.json").read_text())
    assert manifest["card"]["id"] == "standard"
    assert manifest["suite"]["name"] == "tiny"
    assert {"bench", "torch", "python"} <= set(manifest["versions"])
    assert manifest["counters"]["gradient_evaluations"] > 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused_before_any_work(tmp_path: Path, tiny_suite: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(BenchError, match="no permission to write"):
            run(tmp_path / "board", tiny_suite)
    finally:
        tmp_path.chmod(0o700)
