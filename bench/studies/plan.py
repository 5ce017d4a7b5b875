"""What a study still has to do, and how long that takes: shown before it starts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import torch

from bench.attacks.pgd import attacked_model
from bench.catalog.models import list_models
from bench.catalog.suites import list_suites
from bench.core.errors import BenchError
from bench.core.memory import limit_openmp_spinning
from bench.data import dataset_spec
from bench.executors.base import Executor
from bench.executors.local_pool import LocalPool
from bench.leaderboard.evidence.answers import same_answers
from bench.leaderboard.evidence.manifest import read_manifest
from bench.leaderboard.rows import short_digest
from bench.leaderboard.table import FILE_NAME, read_leaderboard
from bench.nets import build_net
from bench.runs.plan import RunPlan, RunRequest, plan_runs
from bench.studies.names import expand
from bench.studies.study import Scale, Study, TrainedModel

_REFERENCE_SECONDS = 0.045
"""What `speed` times on two idle cores of the machine on which the studies' seconds were taken."""
_TILT_SECONDS = 16.0


@dataclass(frozen=True, slots=True)
class StudyRequest:
    """What the user asked for, as the command line has it."""

    study: Study
    scale: str
    output: Path
    leaderboard: Path
    seed: int = 0
    device: str = "auto"
    data_dir: Path | None = None
    download: bool = False
    registry: Path | None = None
    batch_size: int | None = None
    train: bool = False
    """Train the study's models that the registry lacks; without it, finished runs of such models count."""
    executor: Executor = field(default_factory=LocalPool)
    """Open while the study is carried out; training and the computations on models are done here in any case."""

    @property
    def models_folder(self) -> Path:
        """Where models that the study trains are put."""
        return self.output / "models"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do: train a model, run a suite on one, or the tilting experiment."""

    kind: str
    name: str
    seconds: float
    done: bool = False
    trained: TrainedModel | None = None


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """All steps, and what must be left out with the reason."""

    steps: list[Step]
    left_out: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps if not step.done)


def plan_study(request: StudyRequest) -> StudyPlan:
    """What is to be done; a model or suite that cannot be had is left out, and the claims on it stay undecided.

    Raises:
        BenchError: the study has no such scale.
    """
    scale = request.study.scale(request.scale)
    rows = rows_of(request.leaderboard)
    names = StudyModels.of(request, scale, rows)
    factor = speed()
    left_out: list[str] = []
    steps = [Step("train", one.id, 60 * one.minutes * factor, trained=one) for one in names.to_train]
    for role, suite in scale.suites.items():
        seconds = scale.seconds[role] * factor
        steps += _suite_steps(request, scale, role, names, rows=rows, seconds=seconds, left_out=left_out)
        trained = scale.under(role, [one.id for one in names.to_train])
        steps += [Step("run", f"{name} under {suite}", seconds) for name in trained]
    there = {step.name.split()[0] for step in steps}
    left_out += [f"model {name}: {names.why_not(name)}" for name in names.absent if name not in there]
    if any(claim.statistic == "tilt" for claim in request.study.claims):
        steps.append(Step("tilt", "boundary tilting", _TILT_SECONDS * factor))
    return StudyPlan(steps, left_out)


@dataclass(frozen=True, slots=True)
class StudyModels:
    """The models of a scale: in the registry, to be trained, and neither, whose finished runs count all the same."""

    here: list[str]
    to_train: list[TrainedModel]
    absent: list[str]
    recipes: frozenset[str]

    @classmethod
    def of(cls, request: StudyRequest, scale: Scale, rows: pd.DataFrame | None) -> StudyModels:
        dataset = request.study.dataset
        known = {entry.card.id for entry in list_models(dataset, request.registry)}
        trainable = {one.id: one for one in scale.train}
        on_board = set() if rows is None else set(rows.loc[rows["dataset"] == dataset, "model"])
        wanted = expand([*scale.models, *trainable], known | on_board)
        lacking = [name for name in wanted if name not in known]
        to_train = [trainable[name] for name in lacking if request.train and name in trainable]
        absent = [name for name in lacking if not (request.train and name in trainable)]
        return cls([name for name in wanted if name in known], to_train, absent, frozenset(trainable))

    def why_not(self, name: str) -> str:
        """Why a model that is neither here nor on the leaderboard is left out."""
        how = "; it can be trained" if name in self.recipes else ""
        return f"not in the registry, nor are finished runs of it on the leaderboard{how}"


def _suite_steps(
    request: StudyRequest,
    scale: Scale,
    role: str,
    names: StudyModels,
    rows: pd.DataFrame | None,
    seconds: float,
    left_out: list[str],
) -> list[Step]:
    suite = scale.suites[role]
    if not suite.endswith(".toml") and suite not in {known.name for known in list_suites()}:
        left_out.append(f"suite {suite}: this version has none of that name")
        return []
    plans, reason = usable_plans(request, scale, suite, scale.under(role, names.here), rows=rows)
    if reason is not None:
        left_out.append(f"suite {suite}: {reason}")
    done = lent_runs(rows, plans, scale.under(role, names.absent), request.leaderboard)
    return [
        *(Step("run", f"{name} under {suite}", seconds, done=True) for name in done),
        *(
            Step(
                "run",
                f"{plan.entry.card.id} under {suite}",
                seconds,
                done=rows is not None and latest_run(rows, plan, request.leaderboard) is not None,
            )
            for plan in plans
        ),
    ]


def usable_plans(
    request: StudyRequest, scale: Scale, suite: str, models: Sequence[str], rows: pd.DataFrame | None
) -> tuple[list[RunPlan], str | None]:
    """The models' runs under a suite that can be carried out or are done, and why others cannot.

    Without the training split, claims can still be judged on runs that the leaderboard has.
    """
    wanted = run_request(request, scale, suite, models)
    try:
        return plan_runs(wanted), None
    except BenchError as error:
        reason = str(error)
    if rows is None:
        return [], reason
    try:
        plans = plan_runs(replace(wanted, without_training=True))
    except BenchError:
        return [], reason
    done = [plan for plan in plans if latest_run(rows, plan, request.leaderboard) is not None]
    return done, None if len(done) == len(plans) else reason


def run_request(request: StudyRequest, scale: Scale, suite: str, models: Sequence[str]) -> RunRequest:
    """The run of some models under one suite of the study."""
    return RunRequest(
        models=list(models),
        suites=[suite],
        leaderboard=request.leaderboard,
        dataset=request.study.dataset,
        examples=scale.examples.get(suite),
        seed=request.seed,
        device=request.executor.planning_device(request.device),
        batch_size=request.batch_size,
        data_dir=request.data_dir,
        download=request.download,
        registry=request.registry,
    )


def rows_of(leaderboard: Path) -> pd.DataFrame | None:
    """The leaderboard, if there is one; raises BenchError if it cannot be read."""
    return read_leaderboard(leaderboard) if (leaderboard / FILE_NAME).is_file() else None


def latest_run(rows: pd.DataFrame, plan: RunPlan, leaderboard: Path) -> str | None:
    """The id of the latest finished run of the same model, suite, data, number of examples and seed, if any.

    Equal weights are not the same model where the evidence has other answers of the net.
    """
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
    return answers is None or plan.answers is None or same_answers(answers, plan.answers)


def speed() -> float:
    """How many times slower this machine is now than the idle reference; measured in about a second."""
    limit_openmp_spinning()
    spec = dataset_spec("fashion_mnist")
    assert spec is not None  # noqa: S101
    net = build_net("small_cnn", spec.net_parameters)
    images = torch.rand(256, 1, 28, 28, requires_grad=True)
    times = []
    with attacked_model(net):
        for _ in range(15):
            began = time.perf_counter()
            torch.autograd.grad(net(images).sum(), images)
            times.append(time.perf_counter() - began)
    return max(0.25, sorted(times)[len(times) // 2] / _REFERENCE_SECONDS)
