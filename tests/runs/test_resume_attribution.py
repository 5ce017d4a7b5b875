from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from bench.leaderboard.evidence.manifest import read_manifest
from bench.leaderboard.table import read_leaderboard
from bench.protocols import base
from bench.runs.execute import RunOutcome, execute
from bench.runs.plan import RunRequest, plan_runs
from tests.protocols.attribution_suites import ATTACK, INSERTION

UNIT = 8
CHANCE = ["run_id", "finished_at", "seconds"]
"""Columns of the leaderboard that differ from run to run."""

DYING = """
import os, signal, torch
torch.set_num_threads({threads})
from bench.cli.main import main
from bench.protocols import base
from bench.protocols.explanations import {module} as protocol

base.UNIT_EXAMPLES = {unit}
attack, calls = protocol.manipulate, []

def die_in_the_middle(*arguments, **named):
    calls.append(1)
    if len(calls) == {fatal}:
        os.kill(os.getpid(), signal.SIGKILL)
    return attack(*arguments, **named)

protocol.manipulate = die_in_the_middle
main()
"""


def run(folder: Path, suite: Path) -> RunOutcome:
    (plan,) = plan_runs(RunRequest(["standard"], [str(suite)], folder, device="cpu"))
    return execute(plan, folder)


def verdicts(folder: Path) -> pd.DataFrame:
    return read_leaderboard(folder).drop(columns=CHANCE)


@pytest.mark.parametrize(
    ("protocol", "content", "fatal"),
    [
        ("attribution_attack", ATTACK, 5),
        pytest.param("insertion", INSERTION, 2, marks=pytest.mark.slow),
    ],  # both in the second unit of three
)
def test_a_killed_run_resumes_to_the_metrics_and_examples_of_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, content: str, fatal: int
) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text(content)
    script = DYING.format(
        threads=torch.get_num_threads(), module=protocol.removeprefix("attribution_"), unit=UNIT, fatal=fatal
    )
    arguments = [
        "run",
        "--model",
        "standard",
        "--suite",
        suite,
        "--leaderboard",
        tmp_path / "killed",
        "--device",
        "cpu",
    ]
    killed = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (folder,) = (tmp_path / "killed" / "runs").iterdir()
    assert read_manifest(folder).status == "running"
    assert len(list((folder / "parts").glob("*.parquet"))) == 1
    assert not (tmp_path / "killed" / "leaderboard.csv").exists()

    monkeypatch.setattr(base, "UNIT_EXAMPLES", UNIT)
    resumed, whole = (run(tmp_path / name, suite) for name in ("killed", "whole"))
    assert (resumed.folder, resumed.resumed_units, whole.resumed_units) == (folder, 1, 0)
    examples = [pd.read_parquet(outcome.folder / "examples.parquet") for outcome in (resumed, whole)]
    assert examples[0]["example_id"].nunique() == 3 * UNIT
    pd.testing.assert_frame_equal(*examples, check_exact=True)
    pd.testing.assert_frame_equal(verdicts(tmp_path / "killed"), verdicts(tmp_path / "whole"), check_exact=True)
    assert resumed.counters == whole.counters
    assert [finding.id for finding in resumed.findings] == [finding.id for finding in whole.findings]
