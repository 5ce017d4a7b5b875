from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from bench.leaderboard.evidence.manifest import read_manifest
from bench.leaderboard.table import read_leaderboard
from bench.protocols import base
from bench.protocols.explanations import attack, insertion
from bench.runs.execute import RunOutcome, execute
from bench.runs.plan import RunRequest, plan_runs
from tests.executors.processes import start_bench
from tests.protocols.attribution_suites import ATTACK, INSERTION

UNIT = 8
CHANCE = ["run_id", "finished_at", "seconds"]
"""Columns of the leaderboard that differ from run to run."""


def die_in_the_middle(module: ModuleType, fatal: int) -> None:
    """In the process that runs it: let the attack so many times asked kill it."""
    base.UNIT_EXAMPLES = UNIT
    manipulate, calls = module.manipulate, []

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return manipulate(*arguments, **named)

    module.manipulate = counted  # type: ignore[attr-defined]


def die_under_attack() -> None:
    die_in_the_middle(attack, 5)


def die_at_insertion() -> None:
    die_in_the_middle(insertion, 2)


def run(folder: Path, suite: Path) -> RunOutcome:
    (plan,) = plan_runs(RunRequest(["standard"], [str(suite)], folder, device="cpu"))
    return execute(plan, folder)


def verdicts(folder: Path) -> pd.DataFrame:
    return read_leaderboard(folder).drop(columns=CHANCE)


@pytest.mark.parametrize(
    ("content", "death"),
    [
        (ATTACK, die_under_attack),
        pytest.param(INSERTION, die_at_insertion, marks=pytest.mark.slow),
    ],  # both in the second unit of three
)
def test_a_killed_run_resumes_to_the_metrics_and_examples_of_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, death: Callable[[], None]
) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text(content)
    killed = start_bench(
        "run", "--model", "standard", "--suite", suite, "--leaderboard", tmp_path / "killed", "--device", "cpu",
        output=tmp_path / "said", first=death,
    )  # fmt: skip
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL, (tmp_path / "said").read_text()
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
