"""Units side by side in real processes: the same evidence as one process leaves, whatever happens to a helper.

Runs that are stopped with helpers at work: test_execute.py.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from concurrent.futures import BrokenExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from bench.core.errors import BenchError
from bench.executors import local_pool, local_workers, unit_worker
from bench.executors.local_pool import LocalPool
from bench.executors.local_workers import HelperWorker
from bench.leaderboard.evidence.manifest import ExecutorStats, read_manifest
from bench.runs.execute import Observer, RunOutcome, execute
from bench.runs.plan import RunRequest, WorkUnit, plan_runs
from bench.runs.units import compute_unit
from tests.conftest import Bench
from tests.executors.processes import is_gone

NET = """
import torch
from bench.nets import build_net

print("not among the answers")

def make():
    torch.manual_seed(0)
    return build_net("small_cnn", dict(in_channels=1, image_size=28, num_classes=10, mean=[0.286], std=[0.353]))
"""


@pytest.fixture
def two_units(tiny_suite: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of ten images each."""
    monkeypatch.setattr("bench.protocols.base.UNIT_EXAMPLES", 10)
    tiny_suite.write_text(tiny_suite.read_text().replace("steps = 5", "steps = 1"))
    return tiny_suite


def run(folder: Path, suite: Path, model: str = "standard", workers: int | None = 2, **options: Any) -> RunOutcome:
    (plan,) = plan_runs(RunRequest([model], [str(suite)], folder, device="cpu"))
    with LocalPool(workers) as executor:
        return execute(plan, folder, executor=executor, **options)


def require_same_evidence(one: RunOutcome, other: RunOutcome) -> None:
    first, second = (read_manifest(run.folder).result.model_dump_json(exclude={"seconds"}) for run in (one, other))
    assert first == second


class Watcher(Observer):
    def __init__(self) -> None:
        self.total = 0

    def advanced(self, amount: int) -> None:
        self.total += amount


def test_two_processes_leave_the_evidence_of_one_and_go_on_with_the_next_plan(
    tmp_path: Path, two_units: Path, after_helpers: threading.Event
) -> None:
    (tmp_path / "net.py").write_text(NET)
    models = [f"{tmp_path / 'net.py'}:make", "standard"]
    plans = [plan_runs(RunRequest([model], [str(two_units)], tmp_path, device="cpu"))[0] for model in models]
    processes = set()
    with LocalPool(2) as executor:
        for plan in plans:
            after_helpers.clear()
            watcher = Watcher()
            both = execute(plan, tmp_path / "both", executor=executor, observer=watcher)
            manifest = read_manifest(both.folder)
            assert manifest.environment.executor == ExecutorStats(name="local", workers=2, threads=1)
            assert watcher.total == plan.work
            require_same_evidence(both, execute(plan, tmp_path / "alone"))
            (helper,) = executor._workers
            assert helper._context.started.is_alive(), "it waits for the next plan"
            processes.add(helper._context.started.pid)
    assert len(processes) == 1 and is_gone(*processes)


@pytest.mark.usefixtures("forked_helpers")
def test_a_helper_that_dies_changes_nothing_but_the_time(
    tmp_path: Path, two_units: Path, after_helpers: threading.Event, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    noting = HelperWorker.compute

    def kill(helper: HelperWorker, unit: WorkUnit) -> Any:
        helper._context.started.kill()
        return noting(helper, unit)

    monkeypatch.setattr(HelperWorker, "compute", kill)
    watcher = Watcher()
    with caplog.at_level(logging.WARNING):
        outcome = run(tmp_path / "far", two_units, observer=watcher)
    assert "a helper process has ended; its unit" in caplog.text
    executor = read_manifest(outcome.folder).environment.executor
    assert (executor.workers, executor.workers_lost) == (1, 1)
    assert watcher.total == outcome.plan.work
    require_same_evidence(outcome, run(tmp_path / "alone", two_units, workers=1))


@pytest.mark.usefixtures("forked_helpers")
def test_an_error_in_a_helper_is_the_runs_error(
    tmp_path: Path, two_units: Path, after_helpers: threading.Event, bench: Bench
) -> None:
    failing = NET + (
        "import multiprocessing\n"
        "def fail(net, inputs):\n"
        "    if multiprocessing.parent_process() and len(inputs[0]) > 3:  # these it is asked before it has a unit\n"
        "        raise ValueError('only in a helper')\n"
        "def make_failing():\n"
        "    net = make()\n"
        "    net.register_forward_pre_hook(fail)\n"
        "    return net\n"
    )
    (tmp_path / "net.py").write_text(failing)
    error = bench.refused(
        "run", "--model", f"{tmp_path / 'net.py'}:make_failing", "--suite", two_units, "--device", "cpu",
        "--workers", 2, "--leaderboard", tmp_path / "board",
    )  # fmt: skip
    assert "only in a helper" in error
    assert not (tmp_path / "board" / "leaderboard.csv").exists()


@pytest.mark.usefixtures("forked_helpers")
def test_a_model_that_a_helper_cannot_load_is_evaluated_here(
    tmp_path: Path, two_units: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its program reads a file beside it, which does not travel."""
    (tmp_path / "beside.txt").write_text("0")
    needing = "from pathlib import Path\nPath(__file__).with_name('beside.txt').read_text()\n"
    (tmp_path / "net.py").write_text(needing + NET)
    refused = threading.Event()
    dismiss = LocalPool._dismiss

    def note(executor: LocalPool, helper: HelperWorker) -> None:
        dismiss(executor, helper)
        refused.set()

    def wait(*arguments: Any, **named: Any) -> Any:
        assert refused.wait(60)
        return compute_unit(*arguments, **named)

    monkeypatch.setattr(LocalPool, "_dismiss", note)
    monkeypatch.setattr(unit_worker, "compute_unit", wait)
    with caplog.at_level(logging.WARNING):
        assert run(tmp_path / "board", two_units, f"{tmp_path / 'net.py'}:make").workers == 1
    assert "a helper process cannot load a model" in caplog.text


@pytest.mark.usefixtures("forked_helpers", "whole_probes")
def test_what_a_failed_plan_leaves_behind_never_gets_into_the_next(
    tmp_path: Path, two_units: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that is still at a unit of it, and a helper that is still starting."""
    (plan,) = plan_runs(RunRequest(["standard"], [str(two_units)], tmp_path, device="cpu"))
    going_on, threads = threading.Event(), []

    def late(*arguments: Any, **named: Any) -> Any:
        threads.append(threading.current_thread())
        assert going_on.wait(60)
        return compute_unit(*arguments, **named)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("of another plan")

    with LocalPool(2) as executor:
        with monkeypatch.context() as patch:
            patch.setattr(unit_worker, "compute_unit", late)
            patch.setattr(local_workers, "_STOP_SECONDS", 0.0)
            patch.setattr(LocalPool, "_report", fail)
            with pytest.raises(RuntimeError, match="of another plan"):
                execute(plan, tmp_path / "next", executor=executor)
        (helper,) = executor._workers
        outcome = execute(plan, tmp_path / "next", executor=executor, fresh=True)
        assert helper in executor._workers
        going_on.set()
        threads[0].join(60)
    require_same_evidence(outcome, run(tmp_path / "alone", two_units, workers=1))


def test_nobody_is_hired_for_what_is_soon_done(
    tmp_path: Path, two_units: Path, two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a helper was started")

    monkeypatch.setattr(HelperWorker, "__init__", refuse)
    assert run(tmp_path, two_units, workers=None).workers == 1
    monkeypatch.setattr(local_pool, "HIRE_SECONDS", 0.0)
    monkeypatch.setattr(local_pool, "_JUDGE_SECONDS", 0.0)
    with pytest.raises(AssertionError, match="a helper was started"):
        run(tmp_path / "pays", two_units, workers=None)
    monkeypatch.setattr(local_pool, "HIRE_SECONDS", 1e6)
    (plan,) = plan_runs(RunRequest(["standard"], [str(two_units)], tmp_path, device="cpu"))
    with LocalPool() as executor, pytest.raises(AssertionError, match="a helper was started"):
        executor._spent = 2e6  # on other models
        execute(plan, tmp_path / "many", executor=executor)
    assert torch.get_num_threads() == 2, "each of two processes had one"
    monkeypatch.setattr(local_pool, "HIRE_SECONDS", 0.0)
    monkeypatch.setattr(local_pool, "processes_within_memory", lambda model, plan: 1)
    assert run(tmp_path / "no_memory", two_units, workers=None).workers == 1


def test_a_machine_that_starts_no_process_is_enough(
    tmp_path: Path, two_units: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: Any) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(local_workers.SpawnProcess, "start", refuse)
    with caplog.at_level(logging.WARNING):
        assert run(tmp_path, two_units).workers == 1
    assert "no helper process can be started (Cannot allocate memory)" in caplog.text


def test_a_net_in_memory_stays_in_this_process(tmp_path: Path, two_units: Path) -> None:
    import bench

    class Own(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :10]

    with pytest.raises(BenchError, match="2 workers cannot share this run: model fashion_mnist/in_memory is only in"):
        bench.evaluate(Own(), two_units, device="cpu", workers=2)
    assert len(bench.evaluate(Own(), two_units, device="cpu").records)
    with pytest.raises(BenchError, match="workers 0 is not a whole number from 1 on"):
        bench.evaluate("standard", two_units, workers=0)


def test_a_helper_is_apart_from_the_users_script_terminal_and_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    helper = HelperWorker()
    try:
        assert signal.SIGINT in helper.submit(signal.pthread_sigmask, signal.SIG_BLOCK, []).result(60)
        first, second = (helper.submit(os.readlink, f"/proc/self/fd/{one}").result(60) for one in (1, 2))
        assert first == second
        helper._context.started.kill()
        for _ in range(2):  # found out when it is asked, and known from then on
            with pytest.raises(BrokenExecutor):
                helper.compute(WorkUnit(0, 0, 1)).result(60)
    finally:
        helper.stop()
    assert not (tmp_path / "run").exists() and signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_helper_whose_parent_is_gone_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    monkeypatch.setattr(os, "_exit", lambda code: said.append(code))
    local_workers._end_with_parent()
    assert said == [], "this process has no such parent"
    parent = SimpleNamespace(join=lambda: said.append("ended"))
    monkeypatch.setattr(local_workers.multiprocessing, "parent_process", lambda: parent)
    local_workers._end_with_parent()
    assert said == ["ended", 0]
