"""The leaderboard that the gate compares with, and what it has to have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from bench.comparison.compare import latest_run
from bench.comparison.evidence import row_values
from bench.core.errors import BenchError
from bench.leaderboard.rows import short_digest
from bench.leaderboard.table import FILE_NAME, read_leaderboard
from bench.runs.failures import Failures
from bench.runs.plan import RunPlan

_OPTIONS = {"n_examples": "examples", "seed": "seed"}
"""What of a run can be asked for as the baseline has it."""


def baseline_rows(baseline: Path) -> pd.DataFrame:
    """The baseline's rows; raises BenchError that says how to make one."""
    if not (baseline / FILE_NAME).exists():
        raise BenchError(f"there is no baseline in {baseline}; make it with an update.", option=("update", "baseline"))
    return read_leaderboard(baseline)


def comparable_rows(plan: RunPlan, baseline: Path, but: str = "") -> pd.DataFrame:
    """The rows of the baseline's latest run like the one that is planned, which may be the run `but` itself.

    Raises:
        BenchError: there is none; the line says in what they differ, and how to have it alike.
    """
    rows = baseline_rows(baseline)
    wanted = {
        "model": plan.entry.card.id, "dataset": plan.dataset.name, "split": plan.dataset.split,
        "suite": plan.suite.name, "suite_sha256": short_digest(plan.suite.sha256), "seed": plan.seed,
        "n_examples": plan.examples, "precision": plan.precision,
        "dependencies_sha256": short_digest(plan.config.dependencies_sha256),
    }  # fmt: skip
    named = [plan.dataset.name, plan.entry.card.id, plan.suite.name]
    if not (rows[["dataset", "model", "suite"]] == named).all(axis=1).any():
        missing = f"the baseline {baseline} has no run of {plan.entry.card.name} under {plan.suite.name}"
        raise BenchError(f"{missing}; add it with an update of the baseline.", option="update")
    # metrics may have been taken over fewer examples than the run's
    most = rows.groupby("run_id")["n_examples"].transform("max")
    left = rows.assign(n_examples=most)[rows["run_id"] != but]
    for column, value in wanted.items():
        known, left = left[column].unique(), left[left[column] == value]
        if left.empty:
            option = _OPTIONS.get(column, "") if len(known) else ""
            alike = f"judge with {option} {known[-1]}, or " if option else ""
            raise BenchError(
                f"the baseline {baseline} has no run like this of {plan.entry.card.name} under {plan.suite.name}: "
                f"its {column} is {', '.join(map(str, known)) or 'unknown'}, here {value}; "
                f"{alike}add it with an update of the baseline.",
                option=(option, "update") if option else "update",
            )
    return rows.loc[rows["run_id"] == latest_run(left)]


def comparable_plans(plans: Sequence[RunPlan], baseline: Path, failures: Failures) -> list[RunPlan]:
    """Of these plans, found before any work, those that the baseline has a run like, with evidence that can be read.

    Raises:
        BenchError: there is one plan alone, and no such run.
    """
    found = []
    for plan in plans:
        with failures.of(plan.entry.card.name, plan.suite.name):
            rows = comparable_rows(plan, baseline)
            row_values(baseline / "runs" / str(rows["run_id"].iloc[0]), rows)
            found.append(plan)
    failures.raise_lone(len(found))
    return found
