"""Units side by side in real processes: the same evidence as one process leaves, whatever happens to a helper.

Runs that are stopped with helpers at work: test_execute.py.
"""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from bench.core.errors import BenchError
from bench.executors import helper_process
from bench.executors import local_pool as side_by_side
from bench.executors import workers as members
from bench.executors.local_pool import LocalPool
from bench.executors.workers import HelperWorker
from bench.leaderboard.evidence.manifest import read_manifest
from bench.runs.execute import Observer, RunOutcome, execute
from bench.runs.plan import RunRequest, plan_runs
from bench.runs.units import FinishedUnit, compute_unit
from tests.conftest import Bench, torch_threads

NET = """
import torch
from bench.nets import build_net

print("not among the answers")

def make():
    torch.manual_seed(0)
    return build_net("small_cnn", dict(in_channels=1, image_size=28, num_classes=10, mean=[0.286], std=[0.353]))
"""


@pytest.fixture
def two_threads() -> Iterator[None]:
    with torch_threads(2):
        yield


@pytest.fixture
def two_units(tiny_suite: Path) -> Path:
    tiny_suite.write_text(tiny_suite.read_text().replace("steps = 5", "steps = 1").replace("= 20", "= 252"))
    return tiny_suite


@pytest.fixture
def after_helpers(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """This process computes nothing before the event is set: by default, as soon as a helper has a unit."""
    given = threading.Event()
    give = HelperWorker.give

    def note(member: HelperWorker, unit: Any) -> None:
        give(member, unit)
        given.set()

    def wait(*arguments: Any) -> Any:
        assert given.wait(60)
        return compute_unit(*arguments)

    monkeypatch.setattr(HelperWorker, "give", note)
    monkeypatch.setattr(members, "compute_unit", wait)
    return given


def run(folder: Path, suite: Path, model: str = "standard", workers: int | None = 2, **options: Any) -> RunOutcome:
    (plan,) = plan_runs(RunRequest([model], [str(suite)], folder, device="cpu"))
    with LocalPool(workers) as executor:
        return execute(plan, folder, executor=executor, **options)


def require_same_evidence(one: RunOutcome, other: RunOutcome) -> None:
    first, second = read_manifest(one.folder), read_manifest(other.folder)
    for name in ("examples_sha256", "metrics", "counters", "findings"):
        assert first[name] == second[name], name


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
    with LocalPool(2) as executor:
        for plan in plans:
            after_helpers.clear()
            watcher = Watcher()
            both = execute(plan, tmp_path / "both", executor=executor, observer=watcher)
            manifest = read_manifest(both.folder)
            assert manifest["executor"] == {"name": "local", "workers": 2} and both.workers == 2
            assert manifest["threads"] == 1
            assert watcher.total == plan.work
            require_same_evidence(both, execute(plan, tmp_path / "alone"))
            (helper,) = executor._helpers
            assert helper._process.poll() is None, "it waits for the next plan"
    assert helper._process.poll() is not None


def test_a_helper_that_dies_changes_nothing_but_the_time(
    tmp_path: Path, two_units: Path, after_helpers: threading.Event, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    noting = HelperWorker.give

    def kill(member: HelperWorker, unit: Any) -> None:
        noting(member, unit)
        member._process.kill()

    monkeypatch.setattr(HelperWorker, "give", kill)
    watcher = Watcher()
    with caplog.at_level(logging.WARNING):
        outcome = run(tmp_path / "far", two_units, observer=watcher)
    assert "a helper process has ended; its unit" in caplog.text
    assert read_manifest(outcome.folder)["executor"] == {"name": "local", "workers": 1, "workers_lost": 1}
    assert watcher.total == outcome.plan.work
    require_same_evidence(outcome, run(tmp_path / "alone", two_units, workers=1))


def test_an_error_in_a_helper_is_the_runs_error(
    tmp_path: Path, two_units: Path, after_helpers: threading.Event, bench: Bench
) -> None:
    failing = NET + (
        "import os, sys\n"
        "def fail(net, inputs):\n"
        "    if '-c' in sys.argv[:1] and len(inputs[0]) > 3:  # these it is asked before it has a unit\n"
        "        raise ValueError('only in a helper')\n"
        "def make_failing():\n"
        "    net = make()\n"
        "    net.register_forward_pre_hook(fail)\n"
        "    return net\n"
    )
    (tmp_path / "net.py").write_text(failing)
    two_units.write_text(two_units.read_text().replace("= 252", "= 254"))  # four images for the helper
    error = bench.refused(
        "run", "--model", f"{tmp_path / 'net.py'}:make_failing", "--suite", two_units, "--device", "cpu",
        "--workers", 2, "--leaderboard", tmp_path / "board",
    )  # fmt: skip
    assert "only in a helper" in error
    assert not (tmp_path / "board" / "leaderboard.csv").exists()


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

    def wait(*arguments: Any) -> Any:
        assert refused.wait(60)
        return compute_unit(*arguments)

    monkeypatch.setattr(LocalPool, "_dismiss", note)
    monkeypatch.setattr(members, "compute_unit", wait)
    with caplog.at_level(logging.WARNING):
        assert run(tmp_path / "board", two_units, f"{tmp_path / 'net.py'}:make").workers == 1
    assert "a helper process cannot load a model" in caplog.text


def test_what_a_failed_plan_leaves_behind_never_gets_into_the_next(tmp_path: Path, two_units: Path) -> None:
    (plan,) = plan_runs(RunRequest(["standard"], [str(two_units)], tmp_path, device="cpu"))
    with LocalPool(2) as executor:
        stale = members.HereWorker(plan, -1, nn.Identity(), 1, executor._inbox)
        stale.unit = plan.units[0]
        executor._inbox.put((stale, FinishedUnit(0, pd.DataFrame(), {})))
        executor._inbox.put((stale, members.Failed(RuntimeError("of another plan"))))
        outcome = execute(plan, tmp_path / "next", executor=executor)
        stale.stop()
    require_same_evidence(outcome, run(tmp_path / "alone", two_units, workers=1))


def test_nobody_is_hired_for_what_is_soon_done(
    tmp_path: Path, two_units: Path, two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a helper was started")

    monkeypatch.setattr(HelperWorker, "__init__", refuse)
    assert run(tmp_path, two_units, workers=None).workers == 1
    monkeypatch.setattr(side_by_side, "HIRE_SECONDS", 0.0)
    monkeypatch.setattr(side_by_side, "_JUDGE_SECONDS", 0.0)
    with pytest.raises(AssertionError, match="a helper was started"):
        run(tmp_path / "pays", two_units, workers=None)
    monkeypatch.setattr(side_by_side, "HIRE_SECONDS", 1e6)
    (plan,) = plan_runs(RunRequest(["standard"], [str(two_units)], tmp_path, device="cpu"))
    with LocalPool() as executor, pytest.raises(AssertionError, match="a helper was started"):
        executor._spent = 2e6  # on other models
        execute(plan, tmp_path / "many", executor=executor)
    assert torch.get_num_threads() == 2, "each of two processes had one"
    monkeypatch.setattr(side_by_side, "HIRE_SECONDS", 0.0)
    monkeypatch.setattr(side_by_side, "processes_within_memory", lambda model, plan: 1)
    assert run(tmp_path / "no_memory", two_units, workers=None).workers == 1


def test_a_machine_that_starts_no_process_is_enough(
    tmp_path: Path, two_units: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(members.subprocess, "Popen", refuse)
    with caplog.at_level(logging.WARNING):
        assert run(tmp_path, two_units).workers == 1
    assert "no helper process can be started (Cannot allocate memory)" in caplog.text


def test_a_net_in_memory_stays_in_this_process(tmp_path: Path, two_units: Path) -> None:
    import bench

    class Own(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :10]

    with pytest.raises(BenchError, match="--workers 2: model fashion_mnist/in_memory is only in this process's memory"):
        bench.evaluate(Own(), two_units, device="cpu", workers=2)
    assert len(bench.evaluate(Own(), two_units, device="cpu").records)
    with pytest.raises(BenchError, match="workers 0 is not a whole number from 1 on"):
        bench.evaluate("standard", two_units, workers=0)


def test_a_helper_whose_parent_is_gone_ends_without_a_word() -> None:
    """Before it has heard anything, and at its first answer."""
    started = subprocess.Popen(
        [sys.executable, "-c", members._START], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert started.communicate(b"", timeout=60) == (b"", b"") and started.returncode == 0
    ended = []

    class Gone(io.RawIOBase):
        def write(self, _: object) -> int:
            raise BrokenPipeError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "_exit", ended.append)
        helper_process._Helper(Gone())._answer(helper_process.Started())
    assert ended == [0]
