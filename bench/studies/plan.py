"""What a study still has to do, and how long that takes: shown before it starts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from bench.catalog.autoencoders import list_autoencoders
from bench.catalog.locations import folder_list
from bench.catalog.models import list_models
from bench.catalog.suites import list_suites
from bench.core.devices import resolve_device
from bench.core.errors import BenchError
from bench.core.files import clear_disk_errors
from bench.executors.base import Executor
from bench.executors.local_pool import LocalPool
from bench.executors.trainings import side_by_side
from bench.runs.failures import Failures
from bench.runs.plan import RunPlan, RunRequest, plan_runs
from bench.studies.finished import latest_run, lent_runs, rows_of
from bench.studies.names import expand
from bench.studies.scales import AUTOENCODER, Scale, TrainedModel
from bench.studies.step_costs import speed
from bench.studies.study import Experiment, Study
from bench.training import make_recipe

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
    """Train the study's models that neither the registry has nor, with all their runs, the leaderboard."""
    executor: Executor = field(default_factory=LocalPool)
    """Open while the study is carried out; training and the computations on models are done on this machine."""
    workers: int | None = None
    """Trainings side by side at most; None: as many as pay."""

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
    role: str = ""
    """What the claims call the suite of a run."""

    @property
    def model(self) -> str:
        return self.name.split()[0]


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """All steps, and what must be left out with the reason.

    `untrained` are the trainings that the study has and that nobody asked for, with the runs of their models.
    """

    steps: list[Step]
    left_out: list[str] = field(default_factory=list)
    untrained: list[Step] = field(default_factory=list)
    side_by_side: int = 1
    """Trainings at a time."""

    @property
    def seconds(self) -> float:
        return self.time_of(self.steps)

    def time_of(self, steps: Sequence[Step]) -> float:
        """Seconds that those of them take which are not done."""
        return sum(step.seconds / (self.side_by_side if step.kind == "train" else 1) for step in steps if not step.done)

    def of(self, experiment: Experiment, prefix: str) -> list[Step]:
        """The runs that stand for a table or figure of the paper, and the trainings of their models."""
        steps = [*self.steps, *self.untrained]
        named = expand(experiment.models, {step.model.removeprefix(prefix) for step in steps})
        runs = [step for step in steps if step.role in experiment.suites and step.model.removeprefix(prefix) in named]
        missing = {step.model for step in runs if not step.done}
        return [*(step for step in steps if step.kind == "train" and step.model in missing), *runs]


def plan_study(request: StudyRequest) -> StudyPlan:
    """What is to be done; a model or suite that cannot be had is left out, and the claims on it stay undecided.

    Raises:
        BenchError: the study has no such scale, or its models would lie where they cannot be found.
    """
    scale = request.study.scale(request.scale)
    folder_list(request.registry, request.models_folder)  # before anything is trained
    if not request.models_folder.is_dir():  # a plan writes nothing
        return _plan(request, scale)
    with study_registry(request.models_folder, request.registry):
        return _plan(request, scale)


def _plan(request: StudyRequest, scale: Scale) -> StudyPlan:
    rows = rows_of(request.leaderboard)
    names = StudyModels.of(request, scale, rows)
    factor = speed()
    known = {suite.name for suite in list_suites()}
    suites = {role: one for role, one in scale.suites.items() if one in known or one.endswith(".toml") or "@" in one}
    nowhere = set(scale.suites.values()).difference(suites.values())
    left_out = [f"suite {suite}: this version has none of that name" for suite in sorted(nowhere)]
    trainings = [
        Step("train", one.id, 60 * (one.minutes or 0.0) * factor, done=one.id in names.trained, trained=one)
        for one in scale.train
    ]
    seconds = {role: scale.seconds[role] * factor for role in suites}
    found = {
        role: _suite_steps(request, scale, role, names, rows=rows, seconds=seconds[role], left_out=left_out)
        for role in suites
    }
    to_come = {role: scale.under(role, names.to_come) for role in suites}
    incomplete = {name for role in found for name in set(to_come[role]).difference(step.model for step in found[role])}
    lacking = {step.name for step in trainings if not step.done}
    trainable = _with_sources(incomplete, request, scale) & lacking
    to_train = trainable if request.train else set()
    asked = [step for step in trainings if step.done or step.name in to_train]
    steps, untrained = list(asked), [step for step in trainings if step not in asked]
    for role, suite in suites.items():
        kept = [step for step in found[role] if step.model not in to_train]  # other weights: lent runs do not count
        steps += kept
        for name in (one for one in to_come[role] if one not in {step.model for step in kept}):
            run = Step("run", f"{name} under {suite}", seconds[role], role=role)
            (steps if name in to_train else untrained).append(run)
    there = {step.model for step in steps}
    left_out += [f"model {name}: {names.why_not(name)}" for name in names.absent if name not in there]
    if any(claim.statistic == "tilt" for claim in request.study.claims_at(request.scale)):
        steps.append(Step("tilt", "boundary tilting", _TILT_SECONDS * factor))
    device = resolve_device(request.executor.planning_device(request.device))  # a cluster's may not be here
    count = side_by_side(len(trainable), device, request.workers)
    return StudyPlan(steps, left_out, [step for step in untrained if step.model in trainable], count)


def _with_sources(models: set[str], request: StudyRequest, scale: Scale) -> set[str]:
    """The models, the nets that their target maps come from, and VAE-GANs: suites are set against these."""
    found = models | {one.id for one in scale.train if one.recipe == AUTOENCODER}
    for one in reversed(scale.train):  # sources stand before those that need them
        if one.id in found and one.recipe != AUTOENCODER:
            source = make_recipe(one.recipe, request.study.dataset, one.parameters).method.source
            found |= {source} if source is not None else set()
    return found


@dataclass(frozen=True, slots=True)
class StudyModels:
    """The models of a scale: in the registry, and absent, whose finished runs count all the same."""

    here: list[str]
    sample: list[str]
    """One of the registry, whether of the scale or not."""
    absent: list[str]
    trained: frozenset[str]
    to_come: list[str]
    """Classifiers that the study can train and the registry lacks."""
    recipes: frozenset[str]

    @classmethod
    def of(cls, request: StudyRequest, scale: Scale, rows: pd.DataFrame | None) -> StudyModels:
        dataset = request.study.dataset
        known = {entry.card.id for entry in list_models(dataset, request.registry)}
        autoencoders = {entry.card.id for entry in list_autoencoders(request.registry) if entry.card.dataset == dataset}
        trainable = [one.id for one in scale.train]
        on_board = set() if rows is None else set(rows.loc[rows["dataset"] == dataset, "model"])
        wanted = expand([*scale.models, *trainable], known | on_board)
        lacking = [name for name in wanted if name not in known | autoencoders]
        return cls(
            here=[name for name in wanted if name in known],
            sample=sorted(known, key=lambda name: (name not in wanted, name))[:1],
            absent=lacking,
            trained=frozenset(trainable).difference(lacking),
            to_come=[one.id for one in scale.train if one.recipe != AUTOENCODER and one.id in lacking],
            recipes=frozenset(trainable),
        )

    def why_not(self, name: str) -> str:
        """Why a model that is neither here nor on the leaderboard is left out."""
        how = "; it can be trained" if name in self.recipes else ""
        return f"not in the registry, nor are finished runs of it on the leaderboard{how}"


def _suite_steps(
    request: StudyRequest, scale: Scale, role: str, names: StudyModels, *, rows: pd.DataFrame | None, seconds: float,
    left_out: list[str],
) -> list[Step]:  # fmt: skip
    suite = scale.suites[role]
    plans, reason = usable_plans(request, scale, suite, scale.under(role, names.here), rows=rows)
    if reason is not None:
        left_out.append(f"suite {suite}: {reason}")
    sample = sample_plans(request, scale, role, names, usable=plans)
    lent = lent_runs(rows, sample, scale.lent_to(role, names.here, names.absent), request.leaderboard)
    own = [(plan.entry.card.id, latest_run(rows, plan, request.leaderboard)) for plan in plans]
    return [
        Step("run", f"{name} under {suite}", seconds, done=run is not None, role=role)
        for name, run in (*lent.items(), *own)
    ]


def usable_plans(
    request: StudyRequest, scale: Scale, suite: str, models: Sequence[str], rows: pd.DataFrame | None
) -> tuple[list[RunPlan], str | None]:
    """The models' runs under a suite that can be carried out or are done, and why others cannot.

    Without the training split, claims can still be judged on runs that the leaderboard has.
    """
    wanted, failures = run_request(request, scale, suite, models), Failures(fast=False)
    try:
        return plan_runs(wanted, failures), "; ".join(f"{one.what}: {one.reason}" for one in failures.found) or None
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


def sample_plans(
    request: StudyRequest, scale: Scale, role: str, names: StudyModels, usable: list[RunPlan]
) -> list[RunPlan]:
    """Plans under a suite that lent runs are held against: of any model here where none here is run under it."""
    if usable or not scale.under(role, names.absent):
        return usable
    try:
        return plan_runs(replace(run_request(request, scale, scale.suites[role], names.sample), without_training=True))
    except BenchError:
        return []


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


@contextmanager
def study_registry(folder: Path, named: Path | None) -> Iterator[None]:
    """Let everything find the user's models, also what trains on them, and those that the study trained."""
    before = os.environ.get("BENCH_REGISTRY")
    with clear_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    os.environ["BENCH_REGISTRY"] = os.pathsep.join(filter(None, (folder_list(named, folder), before)))
    try:
        yield
    finally:
        if before is None:
            del os.environ["BENCH_REGISTRY"]
        else:
            os.environ["BENCH_REGISTRY"] = before
        if not any(folder.iterdir()):
            folder.rmdir()
