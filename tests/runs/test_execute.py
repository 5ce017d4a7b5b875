from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from bench.core.errors import BenchError
from bench.core.files import sha256_file
from bench.core.version import code_version, commit
from bench.executors.local_pool import LocalPool
from bench.leaderboard.boards import make_boards
from bench.leaderboard.evidence.manifest import read_manifest
from bench.leaderboard.evidence.runs import RunFolder, open_run
from bench.leaderboard.rows import short_digest
from bench.leaderboard.table import read_leaderboard
from bench.protocols import base
from bench.runs.execute import RunOutcome, _public_source, execute, new_manifest
from bench.runs.plan import RunRequest, plan_runs
from bench.studies.plan import latest_run
from tests.conftest import ModelCopy
from tests.executors.processes import (
    UNIT,
    ForkedProcess,
    descendants,
    require_gone,
    small_units_with_pauses,
    start_bench,
)

BROKEN = ["example_id", "attack", "norm", "eps", "broken"]


def run(folder: Path, suite: Path, **changes: object) -> RunOutcome:
    fresh = bool(changes.pop("fresh", False))
    request = RunRequest(
        **{"models": ["standard"], "suites": [str(suite)], "leaderboard": folder, "device": "cpu", **changes}
    )  # type: ignore[arg-type]
    (plan,) = plan_runs(request)
    return execute(plan, folder, fresh=fresh)


def records(outcome: RunOutcome) -> pd.DataFrame:
    return pd.read_parquet(outcome.folder / "examples.parquet")


def test_a_run_leaves_evidence_manifest_and_rows_that_agree(tmp_path: Path, tiny_suite: Path) -> None:
    outcome = run(tmp_path, tiny_suite)
    manifest = read_manifest(outcome.folder)
    assert manifest.status == "finished" and manifest.to_json() == outcome.manifest.to_json()
    assert manifest.result.counters == outcome.counters
    assert manifest.result.examples_sha256 == sha256_file(outcome.folder / "examples.parquet")
    assert manifest.config == outcome.plan.config
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


SLOW_SUITE_CHANGES = {"examples = 20": f"examples = {5 * UNIT}", "patience = 1": "patience = 0"}


@pytest.fixture
def slow_suite(tiny_suite: Path, whole_probes: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of five work units."""
    monkeypatch.setattr(base, "UNIT_EXAMPLES", UNIT)
    content = tiny_suite.read_text()
    for old, new in SLOW_SUITE_CHANGES.items():
        content = content.replace(old, new)
    tiny_suite.write_text(content)
    return tiny_suite


def start(folder: Path, suite: Path, *, executor: str = "local", workers: int = 2) -> ForkedProcess:
    """`bench run` with a helper; what it says is in `said`."""
    return start_bench(
        "run", "--model", "standard", "--suite", suite, "--leaderboard", folder, "--device", "cpu",
        "--executor", executor, "--workers", workers, output=suite.with_name("said"), first=small_units_with_pauses,
    )  # fmt: skip


def wait_for_a_part(folder: Path, process: ForkedProcess) -> None:
    for _ in range(1200):
        # the manifest, not the part's own file, says that it is done
        if any(json.loads(path.read_text())["units"] for path in folder.glob("runs/*/manifest.json")):
            return
        assert process.is_alive(), "ended too early"
        time.sleep(0.02)
    raise AssertionError("no part was written in a minute")


def test_a_killed_run_resumes_and_gives_the_same_verdicts(tmp_path: Path, slow_suite: Path) -> None:
    killed = start(tmp_path / "killed", slow_suite)
    wait_for_a_part(tmp_path / "killed", killed)
    helpers = descendants(killed.pid or 0)
    assert len(helpers) == 1
    killed.kill()
    killed.join()
    require_gone(helpers)
    (folder,) = (tmp_path / "killed" / "runs").iterdir()
    assert read_manifest(folder).status == "running"
    assert not (tmp_path / "killed" / "leaderboard.csv").exists()

    resumed = run(tmp_path / "killed", slow_suite)
    assert resumed.resumed_units >= 1
    assert resumed.folder == folder
    whole = run(tmp_path / "whole", slow_suite)
    assert whole.resumed_units == 0
    pd.testing.assert_frame_equal(records(resumed)[BROKEN], records(whole)[BROKEN])
    assert read_leaderboard(tmp_path / "killed")["run_id"].unique().tolist() == [resumed.run_id]


def test_ctrl_c_keeps_what_was_done_and_exits_with_130(tmp_path: Path, slow_suite: Path) -> None:
    process = start(tmp_path, slow_suite)
    wait_for_a_part(tmp_path, process)
    helpers = descendants(process.pid or 0)
    assert len(helpers) == 1
    os.kill(process.pid or 0, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    said = slow_suite.with_name("said").read_text()
    assert "interrupted: " in said and " is kept" in said and "the same command again" in said
    assert "Traceback" not in said
    require_gone(helpers)
    (folder,) = (tmp_path / "runs").iterdir()
    assert read_manifest(folder).status == "interrupted"
    assert list((folder / "parts").glob("*.parquet"))
    assert not (tmp_path / "leaderboard.csv").exists()
    assert run(tmp_path, slow_suite).resumed_units >= 1


def test_fresh_leaves_an_unfinished_run_alone(tmp_path: Path, tiny_suite: Path) -> None:
    (plan,) = plan_runs(RunRequest(["standard"], [str(tiny_suite)], tmp_path))
    unfinished = open_run(tmp_path, new_manifest(plan, LocalPool()), fresh=False)
    unfinished.release()
    fresh = execute(plan, tmp_path, fresh=True)
    assert fresh.folder != unfinished.path
    resumed = execute(plan, tmp_path)
    assert resumed.folder == unfinished.path


def test_an_unfinished_run_that_another_process_holds_is_not_touched(tmp_path: Path, tiny_suite: Path) -> None:
    (plan,) = plan_runs(RunRequest(["standard"], [str(tiny_suite)], tmp_path))
    held = open_run(tmp_path, new_manifest(plan, LocalPool()), fresh=False)
    said = tiny_suite.with_name("said")
    other = start_bench("run", "--model", "standard", "--suite", tiny_suite, "--leaderboard", tmp_path, output=said)
    other.join(60)
    held.release()
    assert other.exitcode == 0, said.read_text()
    assert len(list((tmp_path / "runs").iterdir())) == 2
    assert read_manifest(held.path).status == "running"


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
    assert {"bench", "commit", "torch", "python", "device", "executor"} <= set(manifest["environment"])
    assert manifest["units"]["counters/gradient_evaluations"] > 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused_before_any_work(tmp_path: Path, tiny_suite: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(BenchError, match="no permission to write"):
            run(tmp_path / "board", tiny_suite)
    finally:
        tmp_path.chmod(0o700)


SCALE = "from torch import nn\n\nclass Net(nn.Module):\n    def __init__(self, net):\n        super().__init__()\n        self.net = net\n\n    def forward(self, images):\n        return self.net(images * {scale})\n"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A program that takes its forward from a file beside it; the weights are the same whatever that does."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # it counts as current within a second, at equal length
    (tmp_path / "forward_of_mine.py").write_text(SCALE.format(scale=0.2))
    path, made = tmp_path / "net.py", "    return Net(bench.load_model('standard'))"
    path.write_text(f"import bench\nfrom forward_of_mine import Net\n\ndef make():\n{made}\n")
    yield path
    sys.modules.pop("forward_of_mine", None)


def clean_accuracy(outcome: RunOutcome) -> float:
    return next(metric.value for metric in outcome.metrics if metric.key.metric == "clean_accuracy")


def stop_after_a_unit(board: Path, suite: Path, model: str) -> None:
    (plan,) = plan_runs(RunRequest([model], [str(suite)], board, device="cpu"))
    run = open_run(board, new_manifest(plan, LocalPool()), fresh=False)
    (unit, *_) = LocalPool().compute(plan, plan.units[:1], lambda _: None)
    run.save_part(unit.index, unit.records, unit.stats)
    run.stop("interrupted")
    run.release()


def test_no_run_goes_on_with_a_net_whose_forward_has_changed(tmp_path: Path, program: Path, tiny_suite: Path) -> None:
    name, board = f"{program}:make", tmp_path / "board"
    stop_after_a_unit(board, tiny_suite, name)
    (tmp_path / "forward_of_mine.py").write_text(SCALE.format(scale=1.0))
    del sys.modules["forward_of_mine"]  # as a new process
    outcome = run(board, tiny_suite, models=[name])
    assert outcome.resumed_units == 0
    assert clean_accuracy(outcome) == clean_accuracy(run(tmp_path / "fresh", tiny_suite))


def test_a_model_that_changes_between_planning_and_the_run_is_refused(
    tmp_path: Path, program: Path, tiny_suite: Path
) -> None:
    (plan,) = plan_runs(RunRequest([f"{program}:make"], [str(tiny_suite)], tmp_path / "board", device="cpu"))
    (tmp_path / "forward_of_mine.py").write_text(SCALE.format(scale=1.0))
    del sys.modules["forward_of_mine"]
    with pytest.raises(BenchError, match="answers otherwise than when the run was planned"):
        execute(plan, tmp_path / "board")


@pytest.mark.parametrize(
    ("error", "reason"),
    [(BenchError("the net\nfails."), "the net fails."), (SystemExit("x" * 999), "SystemExit: xxx")],
)  # fmt: skip
def test_a_run_that_fails_says_so_and_why_and_can_be_resumed(
    tmp_path: Path, tiny_suite: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, reason: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_result", lambda *_: (_ for _ in ()).throw(error))
        with pytest.raises(type(error)):
            run(tmp_path, tiny_suite, examples=2)
    (folder,) = (tmp_path / "runs").iterdir()
    manifest = read_manifest(folder)
    assert manifest.status == "failed" and manifest.reason.startswith(reason) and len(manifest.reason) <= 300
    outcome = run(tmp_path, tiny_suite, examples=2)
    assert outcome.folder == folder and outcome.resumed_units == 1
    assert read_manifest(folder).reason == ""


def test_rows_name_the_code_and_the_precision_and_only_equal_ones_are_comparable(
    tmp_path: Path, tiny_suite: Path
) -> None:
    for precision in ("float32", "bfloat16"):
        run(tmp_path, tiny_suite, examples=2, precision=precision)
    rows = read_leaderboard(tmp_path)
    assert set(rows["precision"]) == {"float32", "bfloat16"} and set(rows["device"]) == {"cpu"}
    assert set(rows["bench_version"]) == {code_version()} and set(rows["commit"]) == {short_digest(commit())}
    titles = [board.title for board in make_boards(rows)]
    assert len(titles) == 2 and sum(title.endswith(", bfloat16 search") for title in titles) == 1
    (plan,) = plan_runs(RunRequest(["standard"], [str(tiny_suite)], tmp_path, examples=2, device="cpu"))
    assert latest_run(rows, plan, tmp_path) == rows["run_id"][rows["precision"] == "float32"].iloc[0]
    assert latest_run(rows[rows["precision"] != "float32"], plan, tmp_path) is None


def test_where_the_data_came_from_is_told_without_the_home_folders_name() -> None:
    for source in (Path.home() / "data.npz", Path.home() / "x" / "y" / "data.npz", Path("hub")):
        assert _public_source(str(source)) == "/".join(source.parts[-2:]).removeprefix(f"{Path.home().name}/")
