"""Doing a study: train what is missing, run what has not been run, judge the claims, write tables, figures, verdict."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd

from bench.catalog.locations import shipped
from bench.core.devices import resolve_device
from bench.core.files import json_lines, shared_text, write_atomically
from bench.executors.trainings import Training, train_all
from bench.leaderboard.rows import COLUMNS
from bench.leaderboard.table import read_leaderboard
from bench.runs.execute import Observer, execute
from bench.runs.failures import Failures
from bench.runs.plan import RunPlan
from bench.studies.claims import Judgement, judge_all
from bench.studies.computations import Computations
from bench.studies.effects import Material
from bench.studies.figures import write_figures
from bench.studies.finished import latest_run, lent_runs, rows_of
from bench.studies.plan import StudyModels, StudyPlan, StudyRequest, sample_plans, study_registry, usable_plans
from bench.studies.report import write_tables, write_verdict
from bench.studies.scales import AUTOENCODER, TrainedModel
from bench.studies.values import Values
from bench.training import make_recipe
from bench.training.boundary_tilt import run_tilt
from bench.training.epochs import Progress
from bench.training.fitting import TrainingRequest
from bench.training.tuning import read_trials
from bench.training.vae_gan import make_vae_gan_recipe

Watch = Callable[[RunPlan, str], Observer]
WatchTraining = Callable[[TrainedModel, str], Callable[[Progress], None]]


@dataclass(frozen=True, slots=True)
class StudyOutcome:
    """A finished study: where it lies and what was decided."""

    folder: Path
    judgements: list[Judgement]
    planned_seconds: float
    seconds: float
    runs: int
    """How many it was judged by."""


def reproduce(
    request: StudyRequest, plan: StudyPlan, watch: Watch, *, watch_training: WatchTraining = lambda *_: lambda _: None,
    failures: Failures | None = None,
) -> StudyOutcome:  # fmt: skip
    """Carry out a plan; stopped and started again, finished runs and trained models are not done again.

    Args:
        failures: gets trainings and runs that fail, which are left out then; None: that is an error.

    Raises:
        BenchError: something cannot be written or read, or a model cannot be evaluated.
    """
    began, failures = time.perf_counter(), failures or Failures()
    with study_registry(request.models_folder, request.registry):
        trainings = [step.trained for step in plan.steps if step.trained is not None and not step.done]
        own = [
            _training(request, model, partial(watch_training, model, f"[{position}/{len(trainings)}] "))
            for position, model in enumerate(trainings, start=1)
        ]
        if own:
            own[0].request.load("train")  # where it is not here, none need be tried
        train_all(own, request.workers, failures)
        roles, runs = _run_all(request, watch, failures)
        failed = [
            f"model {one.model}: {f'under {one.suite}, ' * bool(one.suite)}{one.reason}" for one in failures.found
        ]
        plan = replace(plan, left_out=[shared_text(text) for text in (*plan.left_out, *failed)])
        tilt = run_tilt() if any(step.kind == "tilt" for step in plan.steps) else None
        rows = read_leaderboard(request.leaderboard) if runs else pd.DataFrame({name: [] for name in COLUMNS})
        rows = rows[rows["run_id"].isin(runs)].reset_index(drop=True)
        scale = request.study.scale(request.scale)
        left_out = dict(entry.replace(f"model {scale.prefix}", "model ", 1).split(": ", 1) for entry in plan.left_out)
        computed = Computations(
            request.study.dataset, registry=request.registry, data_dir=request.data_dir, download=request.download,
            prefix=scale.prefix,
        )  # fmt: skip
        # claims and pictures leave the prefix out
        models = rows["model"].str.removeprefix(scale.prefix) if len(rows) else rows["model"]
        named = rows.assign(suite=rows["suite"].map(roles), model=models)
        material = Material(Values(request.leaderboard, named), scale.suites, tilt, computed, trials=_trials(request))
        judgements = judge_all(request.study.claims_at(request.scale), material, left_out)
        seconds = time.perf_counter() - began
        _write(request, plan, rows, judgements, material=material, seconds=seconds)
    return StudyOutcome(request.output, judgements, plan.seconds, seconds, runs=len(runs))


def _write(
    request: StudyRequest,
    plan: StudyPlan,
    rows: pd.DataFrame,
    judgements: list[Judgement],
    material: Material,
    seconds: float,
) -> None:
    folder = request.output
    figures = write_figures(request, rows, material)
    write_tables(folder, rows.loc[sorted(material.values.used)], judgements, material.tilt)
    write_verdict(request, plan, judgements, figures, rows=rows)
    content = {
        "study": request.study.name,
        "scale": request.scale,
        "planned_seconds": round(plan.seconds, 1),
        "seconds": round(seconds, 1),
        "steps": [
            {"kind": step.kind, "name": step.name, "planned_seconds": round(step.seconds, 1), "done_before": step.done}
            for step in plan.steps
        ],
        "left_out": plan.left_out,
        "runs": sorted(set(rows["run_id"])) if len(rows) else [],
    }
    write_atomically(folder / "plan.json", json_lines(content).encode())


def _training(request: StudyRequest, model: TrainedModel, watch: Callable[[], Callable[[Progress], None]]) -> Training:
    dataset = request.study.dataset
    autoencoder = make_vae_gan_recipe(dataset, model.parameters) if model.recipe == AUTOENCODER else None
    recipe = make_recipe("standard", dataset) if autoencoder else make_recipe(model.recipe, dataset, model.parameters)
    training = TrainingRequest(
        recipe=recipe, dataset=dataset, output=request.models_folder, device=resolve_device(request.device),
        model_id=model.id, seed=model.seed, data_dir=request.data_dir, download=request.download, method=model.method,
    )  # fmt: skip
    return Training(training, watch, autoencoder)


def _run_all(request: StudyRequest, watch: Watch, failures: Failures) -> tuple[dict[str, str], set[str]]:
    """Run every suite that can be run on every model that is there, unless the leaderboard has it already.

    Returns:
        what the claims call each suite, and the ids of the study's runs.
    """
    scale = request.study.scale(request.scale)
    before = rows_of(request.leaderboard)
    names = StudyModels.of(request, scale, before)
    roles: dict[str, str] = {}
    plans: list[RunPlan] = []
    runs: set[str] = set()
    for role, suite in scale.suites.items():
        # what is not usable the plan has said already, and the claims on it will
        usable, _ = usable_plans(request, scale, suite, scale.under(role, names.here), rows=before)
        sample = sample_plans(request, scale, role, names, usable=usable)
        lent = scale.lent_to(role, names.here, names.absent)
        runs |= set(lent_runs(before, sample, lent, request.leaderboard).values())
        roles |= {plan.suite.name: role for plan in sample}
        plans += usable
    for position, plan in enumerate(plans, start=1):
        if latest_run(rows_of(request.leaderboard), plan, request.leaderboard) is None:
            with failures.of(plan.entry.card.id, plan.suite.name):
                watcher = watch(plan, f"[{position}/{len(plans)}] ")
                execute(plan, request.leaderboard, observer=watcher, executor=request.executor)
    rows = rows_of(request.leaderboard)
    runs |= {run for plan in plans if (run := latest_run(rows, plan, request.leaderboard)) is not None}
    return roles, runs


def _trials(request: StudyRequest) -> dict[str, int]:
    """Settings tried for each recipe, by the registries' tuning.csv; a trial that lies in two of them counts once."""
    roots = [shipped("models"), request.models_folder, *([request.registry] if request.registry else [])]
    tables = [read_trials(root / request.study.dataset / "tuning.csv") for root in roots]
    counts = pd.concat(tables).drop_duplicates()["recipe"].value_counts()
    return {str(recipe): int(count) for recipe, count in counts.items()}
