"""From names to plans: everything that can be wrong with a request is found here, before anything is written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

import bench
from bench.catalog.models import ModelEntry, resolve_models
from bench.catalog.sources import SourceOptions
from bench.catalog.suites import Suite, resolve_suites
from bench.core.devices import resolve_device
from bench.core.errors import BenchError
from bench.core.files import shared_path
from bench.core.precision import Precision, resolve_precision
from bench.data import ImageDataset
from bench.leaderboard.evidence.answers import FixedAnswers
from bench.leaderboard.evidence.manifest import Dependency, Request, RunConfig
from bench.leaderboard.table import check_leaderboard
from bench.nets.compiled import require_compiler
from bench.protocols import Protocol
from bench.runs.batch_size import images_within_memory
from bench.runs.failures import Failures
from bench.runs.fitting import FittedData, in_precision, load_fitted, share_programs, skipped
from bench.runs.ready import check_model, require_weights


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What the user asked for, as the command line has it."""

    models: Sequence[str]
    suites: Sequence[Suite | str]
    leaderboard: Path
    dataset: str | None = None
    examples: int | None = None
    seed: int = 0
    device: str = "auto"
    batch_size: int | None = None
    data_dir: Path | None = None
    download: bool = False
    source: SourceOptions | None = None
    registry: Path | None = None
    programs: Sequence[Path] = ()
    """Files of the user's that cards of models and suites ask for, each by its name."""
    entries: Sequence[ModelEntry] = ()
    """Models that are in memory; evaluated before those of `models`."""
    precision: str = "float32"
    """Of the search for adversarial examples."""
    compile: bool = False
    """Whether the search goes through torch.compile, where that can take the net."""
    suite_path: Path | None = None
    """A folder of suites beside the shipped ones."""
    save_adversarial: bool = False
    """Keep the smallest adversarial image of every example and norm in the run's folder."""
    expect_clean: float | None = None
    """The clean accuracy, from 0 to 1, that every model is known to have."""
    without_training: bool = False
    """Such plans tell which runs are done: no training split is loaded, the leaderboard may be one to be read only."""


_PIECES = 1_000_000
"""Added to where a piece starts, for its index: those of the protocol's own cuts lie below."""


@dataclass(frozen=True, slots=True)
class WorkUnit:
    """The examples (or what else the protocol cuts its work into) `start..stop` of one run."""

    index: int
    start: int
    stop: int


def piece(start: int, stop: int) -> WorkUnit:
    """A unit that is none of the protocol's own cuts."""
    return WorkUnit(_PIECES + start, start, stop)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """One model under one suite, checked and ready to execute."""

    entry: ModelEntry
    suite: Suite
    protocol: Protocol
    dataset: ImageDataset
    examples: int
    seed: int
    device: torch.device
    batch_size: int
    training: ImageDataset | None = None
    precision: Precision = "float32"
    registry: Path | None = None
    dependencies: Mapping[str, Dependency] = field(default_factory=dict)
    """What else decides metrics or findings, by name; see `Protocol.dependencies`."""
    request: Request = field(default_factory=Request)
    answers: FixedAnswers | None = None
    """The model's answers to fixed images: what its weights' digest does not tell of its forward."""
    net: nn.Module | None = field(default=None, repr=False, compare=False)
    """As `prepared_net` made it, where the run in this process may have the one that was checked."""
    unit_images: int | None = None
    """Images that the device holds at once beside a batch; None: units are as the protocol cuts them anywhere."""

    @property
    def units(self) -> list[WorkUnit]:
        """Where the device is to be filled, a first unit of one batch tells the pace; the others are as large as fits.

        What takes more than a minute is cut all the same, see bench.runs.pieces.
        """
        size = self.unit_images
        if size is None or not self.protocol.fills_device:
            with self.protocol.blamed():
                cuts = self.protocol.units(self.examples, math.prod(self.dataset.shape[1:]))
                if not cuts:
                    raise ValueError("it cuts a run into no work units")
            return [WorkUnit(index, *bounds) for index, bounds in enumerate(cuts)]
        starts = [0, *range(min(self.batch_size, size), self.examples, size)]
        return [piece(start, stop) for start, stop in pairwise([*starts, self.examples])]

    @property
    def work(self) -> int:
        return sum(self.work_of(unit) for unit in self.units)

    def work_of(self, unit: WorkUnit) -> int:
        """How much work a unit is, for the progress bar."""
        return self.protocol.unit_work(self.dataset.name, unit.start, unit.stop)

    def require_same_dependencies(self) -> None:
        """Raise BenchError if the dependencies, as this process finds them, are not those that were planned with."""
        found = self.protocol.dependencies(self.dataset.name, self.entry.card.name, self.registry)
        for name in sorted(self.dependencies.keys() | found.keys()):
            if self.dependencies.get(name) != found.get(name):
                raise BenchError(
                    f"suite {self.suite.name} depends on the {name.replace('_', ' ')}, which is not the one that the "
                    "run was planned with; a file has changed, or this machine has another registry."
                )

    @property
    def config(self) -> RunConfig:
        """What identifies the run."""
        card = self.entry.card
        return RunConfig(
            model=card.name,
            model_sha256=card.weights.sha256,
            program_sha256="" if card.program is None else card.program.sha256,
            suite=self.suite.name,
            suite_version=self.suite.file.version,
            suite_sha256=self.suite.sha256,
            dataset=self.dataset.name,
            split=self.dataset.split,
            data_sha256=self.dataset.sha256,
            training_sha256="" if self.training is None else self.training.sha256,
            examples=self.examples,
            seed=self.seed,
            precision=self.precision,
            dependencies=dict(self.dependencies),
            bench_version=bench.__version__,
        )


def plan_runs(request: RunRequest, failures: Failures | None = None) -> list[RunPlan]:
    """Resolve names, load data, check weights, leaderboard and one image's forward pass of every model.

    Args:
        failures: gets what is wrong with single models, data sets and suites, which are left out then; None: that is an
            error too. A suite that a data set cannot have, and that only a wildcard has named, is skipped.

    Raises:
        BenchError: anything else is wrong; nothing has been written then.
    """
    failures = failures or Failures()
    device = resolve_device(request.device)
    precision = _precision(request, device)
    if not 0 <= request.seed < 1 << 63:
        raise BenchError(f"seed {request.seed} is out of range; use 0 to 2^63 - 1.", option="seed")
    if request.batch_size is not None and not 1 <= request.batch_size < 1 << 31:
        raise BenchError(f"{request.batch_size} is not a number of images; use 1 or more.", option="batch_size")
    if request.expect_clean is not None and not 0 <= request.expect_clean <= 1:
        raise BenchError(f"{request.expect_clean:g} is no share of images; use e.g. 0.83.", option="expect_clean")
    suites = resolve_suites(request.suites, request.suite_path)
    files, of_models = share_programs(request.programs, suites)
    named = resolve_models(
        request.models, request.dataset, options=request.source or SourceOptions(download=request.download),
        registry=request.registry, programs=of_models, attempt=failures.of,
    )  # fmt: skip
    entries = [*request.entries, *named]
    suites = [suite for suite in suites if in_precision(suite, precision, request, failures)]
    data: dict[str, FittedData] = {}
    for name in dict.fromkeys(entry.card.dataset for entry in entries):
        with failures.of(f"data set {name}"):
            data[name] = load_fitted(name, suites, request, files, failures=failures)
    plans: list[RunPlan] = []
    for entry in entries:
        if entry.card.dataset in data:
            with failures.of(entry.card.name):
                plans += _plans_of(
                    entry, data[entry.card.dataset], request, failures, device=device, precision=precision,
                    alone=len(entries) == 1,
                )  # fmt: skip
    failures.raise_lone(len(plans))
    if plans and request.save_adversarial and not any(plan.request.save_adversarial for plan in plans):
        raise BenchError(f"suite {suites[0].name} looks for no images that fool a model.", option="save_adversarial")
    digests = {found.sha256 for plan in plans for found in plan.dependencies.values()}
    if digests:
        require_weights(digests, request.registry, download=request.download)
    if not request.without_training:
        check_leaderboard(request.leaderboard)
    return plans


def _precision(request: RunRequest, device: torch.device) -> Precision:
    """Of the search; raises BenchError where the device does not have it, or nothing can be compiled here."""
    if request.compile:
        require_compiler(device)
    return resolve_precision(request.precision, device, compiled=request.compile)


def _plans_of(
    entry: ModelEntry, data: FittedData, request: RunRequest, failures: Failures, *, device: torch.device,
    precision: Precision, alone: bool,
) -> list[RunPlan]:  # fmt: skip
    """One model's plans, a suite each; raises BenchError if the model cannot be judged."""
    suites = {suite.name: protocol for suite, protocol, _ in data.suites}
    checked = check_model(
        entry, data.test, suites, device, batch_size=request.batch_size, keep=alone, expect_clean=request.expect_clean,
        precision=precision,
    )  # fmt: skip
    named: dict[str, str | bool | list[str]] = {
        name: shared_path(value) if isinstance(value, str) else value for name, value in entry.named.items()
    }
    if programs := [shared_path(str(path)) for path in request.programs]:
        named["program"] = programs if len(programs) > 1 else programs[0]
    if request.registry is not None and not entry.named:
        named["registry"] = shared_path(str(request.registry))
    asked = Request(
        examples=request.examples, device=request.device, batch_size=request.batch_size,
        named={} if entry.build is not None and not entry.named else named,
    )  # fmt: skip
    plans = []
    for suite, protocol, examples in data.suites:
        with failures.of(entry.card.name, suite.name), skipped(suite, data.test.name, request, failures):
            if suite.name in checked.unfit:
                raise checked.unfit[suite.name]
            plans.append(
                RunPlan(
                    entry=entry,
                    suite=suite,
                    protocol=protocol,
                    dataset=data.test,
                    examples=examples,
                    seed=request.seed,
                    device=device,
                    batch_size=checked.batch_size,
                    training=data.training if protocol.needs_training_split else None,
                    precision=checked.precision,
                    registry=request.registry,
                    dependencies=protocol.dependencies(data.test.name, entry.card.name, request.registry),
                    request=asked.model_copy(
                        update={"save_adversarial": request.save_adversarial and protocol.saves_adversarial}
                    ),
                    answers=checked.answers,
                    net=checked.net,
                    unit_images=images_within_memory(data.test.shape[1:], device),
                )
            )
    return plans
