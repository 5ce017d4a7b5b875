"""Which of a study's runs the leaderboard has already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from bench.core.errors import BenchError
from bench.leaderboard.evidence.answers import may_be_same
from bench.leaderboard.evidence.manifest import read_manifest
from bench.leaderboard.rows import short_digest
from bench.leaderboard.table import FILE_NAME, read_leaderboard
from bench.runs.plan import RunPlan


def rows_of(leaderboard: Path) -> pd.DataFrame | None:
    """The leaderboard, if there is one; raises BenchError if it cannot be read."""
    return read_leaderboard(leaderboard) if (leaderboard / FILE_NAME).is_file() else None


def latest_run(rows: pd.DataFrame | None, plan: RunPlan, leaderboard: Path) -> str | None:
    """The id of the latest finished run of the same model, suite, data, number of examples and seed, if any.

    Equal weights are not the same model where the evidence has other answers of the net.
    """
    if rows is None:
        return None
    card = plan.entry.card
    own = rows[(rows["model"] == card.id) & (rows["model_sha256"] == short_digest(card.weights.sha256))]
    return next((run for run in _finished(own, plan) if _answers_alike(leaderboard / "runs" / run, plan)), None)


def lent_runs(
    rows: pd.DataFrame | None, plans: Sequence[RunPlan], models: Sequence[str], leaderboard: Path
) -> dict[str, str]:
    """Model -> its latest finished run that is as `plans`, of other models under one suite: same data, images, seed.

    For models of which the leaderboard has the evidence and the registry no weights.
    """
    if rows is None or not plans:
        return {}
    plan, found = plans[0], {}
    for model in models:
        own = rows[(rows["model"] == model) & (rows["dataset"] == plan.dataset.name)]
        if own.empty:
            continue
        latest = own.sort_values("finished_at", kind="stable")["model_sha256"].iloc[-1]
        own = own[own["model_sha256"] == latest]  # of one net under every suite
        needed = plan.protocol.dependencies(plan.dataset.name, f"{plan.dataset.name}/{model}", plan.registry)
        fitting = _finished(own, replace(plan, dependencies=needed))
        if fitting and (leaderboard / "runs" / fitting[0]).is_dir():
            found[model] = fitting[0]
    return found


def _finished(rows: pd.DataFrame, plan: RunPlan) -> list[str]:
    """Finished runs among a model's rows with the plan's suite, data, number of examples and seed, the latest first."""
    same = rows[
        (rows["suite_sha256"] == short_digest(plan.suite.sha256))
        & (rows["data_sha256"] == short_digest(plan.dataset.sha256))
        & (rows["seed"] == plan.seed)
        & (rows["precision"] == plan.precision)
        & (rows["dependencies_sha256"] == short_digest(plan.config.dependencies_sha256))
    ]
    whole = same.groupby("run_id", sort=False)["n_examples"].max()
    return [str(run) for run, count in whole.items() if count == plan.examples][::-1]


def _answers_alike(folder: Path, plan: RunPlan) -> bool:
    """Whether the run is of a net that answers as the plan's does, as far as its evidence says."""
    try:
        answers = read_manifest(folder).answers
    except BenchError:
        return True
    return may_be_same(answers, plan.answers)
