"""From names to plans: everything that can be wrong with a request is found here, before anything is written."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.attacks.user_files import UserFile
from bench.catalog.dataset_radii import radii_advice, suite_for
from bench.catalog.models import ModelEntry, resolve_models
from bench.catalog.sources import SourceOptions
from bench.catalog.suites import Suite, resolve_suites
from bench.core.devices import resolve_device
from bench.core.errors import BenchError
from bench.core.files import sha256_bytes
from bench.core.memory import is_out_of_memory
from bench.core.precision import Precision, resolve_precision
from bench.core.random_state import random_numbers_of
from bench.data import ImageDataset, load_split
from bench.leaderboard.table import check_leaderboard
from bench.protocols import Dependency, Protocol, protocol_for
from bench.protocols.clean_pass import clean_pass, has_gradient, require_second_derivatives
from bench.runs.batch_size import automatic_batch_size, no_room
from bench.runs.fixed_answers import fixed_answers
from bench.runs.ready import prepared_net


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
    fresh: bool = False
    source: SourceOptions | None = None
    registry: Path | None = None
    program: Path | None = None
    entries: Sequence[ModelEntry] = ()
    """Models that are in memory; evaluated before those of `models`."""
    precision: str = "float32"
    """Of the search for adversarial examples."""
    suite_path: Path | None = None
    """A folder of suites beside the shipped ones."""
    without_training: bool = False
    """Load no training split: such plans tell which runs are done, but cannot be carried out where one is needed."""


@dataclass(frozen=True, slots=True)
class WorkUnit:
    """The examples (or what else the protocol cuts its work into) `start..stop` of one run."""

    index: int
    start: int
    stop: int


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
    answers: Mapping[str, Any] | None = None
    """The model's answers to fixed images: what its weights' digest does not tell of its forward."""

    @property
    def units(self) -> list[WorkUnit]:
        cuts = self.protocol.units(self.examples, math.prod(self.dataset.shape[1:]))
        return [WorkUnit(index, *bounds) for index, bounds in enumerate(cuts)]

    @property
    def work(self) -> int:
        return sum(self.work_of(unit) for unit in self.units)

    def work_of(self, unit: WorkUnit) -> int:
        """How much work a unit is, for the progress bar."""
        return self.protocol.unit_work(self.dataset.name, unit.start, unit.stop)

    @property
    def dependencies_sha256(self) -> str:
        """One digest of all that decides the metrics besides model, suite and data; empty where there is nothing."""
        deciding = {name: found.sha256 for name, found in self.dependencies.items() if found.decides == "metrics"}
        return sha256_bytes(json.dumps(deciding, sort_keys=True).encode()) if deciding else ""

    def require_same_dependencies(self) -> None:
        """Raise BenchError if the dependencies, as this process finds them, are not those that were planned with."""
        found = self.protocol.dependencies(self.dataset.name, self.entry.card.name, self.registry)
        for name in sorted(self.dependencies.keys() | found.keys()):
            if self.dependencies.get(name) != found.get(name):
                raise BenchError(
                    f"suite {self.suite.name} depends on the {name.replace('_', ' ')}, which is not the one that the "
                    "run was planned with; a file has changed, or this machine has another registry."
                )

    def facts(self) -> dict[str, Any]:
        """Everything that decides the verdicts, and nothing that does not (batch size, device).

        Of this package its version counts and not its commit: what changes numbers gives a suite a new version, and
        other changes must not keep a run from being resumed.
        """
        from bench import __version__

        training = {} if self.training is None else {"training_sha256": self.training.sha256}
        program = self.entry.card.program
        return training | {
            "model": self.entry.card.name,
            "model_sha256": self.entry.card.weights.sha256,
            "suite": self.suite.name,
            "suite_version": self.suite.file.version,
            "suite_sha256": self.suite.sha256,
            "dataset": self.dataset.name,
            "split": self.dataset.split,
            "data_sha256": self.dataset.sha256,
            "examples": self.examples,
            "seed": self.seed,
            "bench_version": __version__,
            # the weights' digest does not cover what a program does with them
            **({} if program is None else {"program_sha256": program.sha256}),
            # what is judged is judged in float32, but a search may miss what another finds
            **({} if self.precision == "float32" else {"search_precision": self.precision}),
            **{f"{name}_sha256": found.sha256 for name, found in self.dependencies.items()},
        }


def plan_runs(request: RunRequest) -> list[RunPlan]:
    """Resolve names, load data, check weights, leaderboard and one image's forward pass of every model.

    Raises:
        BenchError: anything is wrong with any of them; nothing has been written then.
    """
    device = resolve_device(request.device)
    precision = resolve_precision(request.precision, device)
    if not 0 <= request.seed < 1 << 63:
        raise BenchError(f"--seed {request.seed} is out of range; use 0 to 2^63 - 1.")
    if request.batch_size is not None and request.batch_size < 1:
        raise BenchError(f"--batch-size {request.batch_size} is not a number of images; use 1 or more.")
    found = resolve_suites(request.suites, request.suite_path)
    # the file that the user names is the suites' where they ask for one, and else the models'
    of_suites = request.program is not None and any(protocol_for(suite).takes_program for suite in found)
    file = UserFile.read(request.program) if of_suites and request.program is not None else None
    entries = [
        *request.entries,
        *resolve_models(
            request.models, request.dataset, options=request.source, registry=request.registry,
            program=None if of_suites else request.program,
        ),
    ]  # fmt: skip
    for suite in found:
        if precision != "float32" and not protocol_for(suite).search_takes_precision:
            raise BenchError(f"suite {suite.name} computes in float32 only; leave --precision {precision} out.")
    suites: dict[str, list[tuple[Suite, Protocol]]] = {}
    datasets: dict[str, ImageDataset] = {}
    for entry in entries:
        name = entry.card.dataset
        if name not in datasets:
            datasets[name] = load_split(name, "test", data_dir=request.data_dir, download=request.download)
            suites[name] = [_fit(suite, name, request.data_dir, file) for suite in found]
    training = {
        name: load_split(name, "train", data_dir=request.data_dir, download=request.download)
        for name in datasets
        if not request.without_training and any(protocol.needs_training_split for _, protocol in suites[name])
    }
    plans = [
        _plan(entry, suite, protocol, datasets[entry.card.dataset], training, request, device, precision)
        for entry in entries
        for suite, protocol in suites[entry.card.dataset]
    ]
    checked = {
        entry.card.name: _check_model(entry, datasets[entry.card.dataset], device, request.batch_size, found)
        for entry in entries
    }
    check_leaderboard(request.leaderboard)
    return [dataclasses.replace(plan, **checked[plan.entry.card.name]) for plan in plans]


def _fit(suite: Suite, dataset: str, data_dir: Path | None, file: UserFile | None) -> tuple[Suite, Protocol]:
    """The suite with radii for the data set, and its protocol; raises BenchError if there are none."""
    fitted = suite_for(suite, dataset, data_dir)
    protocol = protocol_for(fitted)
    protocol.use_program(file)
    try:
        protocol.require_dataset(dataset)
    except BenchError as error:
        raise BenchError(f"{error}{radii_advice(fitted, dataset)}") from error
    return fitted, protocol


def _plan(
    entry: ModelEntry,
    suite: Suite,
    protocol: Protocol,
    dataset: ImageDataset,
    training: dict[str, ImageDataset],
    request: RunRequest,
    device: torch.device,
    precision: Precision,
) -> RunPlan:
    wanted = suite.file.examples if request.examples is None else request.examples
    if wanted < 1:
        raise BenchError(f"--examples {wanted} leaves nothing to evaluate; use 1 to {len(dataset)}.")
    if wanted > len(dataset):
        if request.examples is None:
            wanted = len(dataset)
        else:
            raise BenchError(f"--examples {wanted} is more than {dataset.name} has; use 1 to {len(dataset)}.")
    try:
        protocol.require_images(dataset.shape[1:], dataset.name)
    except BenchError as error:
        raise BenchError(f"suite {suite.name}: {error}") from error
    split = training.get(dataset.name) if protocol.needs_training_split else None
    size = request.batch_size or 1  # chosen when the model is loaded
    needed = protocol.dependencies(dataset.name, entry.card.name, request.registry)
    return RunPlan(
        entry, suite, protocol, dataset, wanted, request.seed, device, size, split, precision, request.registry, needed
    )


def _check_model(
    entry: ModelEntry, dataset: ImageDataset, device: torch.device, batch_size: int | None, suites: Sequence[Suite]
) -> dict[str, Any]:
    """Send a few images through.

    Returns:
        what its plans need to know: `batch_size`, as asked for or as it suits model and device, and `answers`.

    Raises:
        BenchError: the net cannot be judged, or lacks what one of the suites needs.
    """
    if entry.card.expected_classes != dataset.num_classes:
        raise BenchError(
            f"model {entry.card.name} is for {entry.card.expected_classes} classes, "
            f"{dataset.name} has {dataset.num_classes}."
        )
    try:
        model = prepared_net(entry, dataset, device)
        images = dataset.pixels(slice(0, 3)).to(device)
        # two and then one: a net that was exported for a fixed number of images is found here
        with random_numbers_of(device, "check"):
            clean_pass(model, entry.card.name, images, dataset.num_classes, 2)
            for suite in suites:
                _require_fit(model, entry.card.name, images, suite)
        size = automatic_batch_size(model, images, device) if batch_size is None else batch_size
        return {"batch_size": size, "answers": fixed_answers(model, dataset, device)}
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise no_room(device, entry.card.name, "a single image") from error


def _require_fit(model: nn.Module, name: str, images: Tensor, suite: Suite) -> None:
    """Raise BenchError unless the net has the derivatives that the suite needs, and is one that its methods take."""
    protocol = protocol_for(suite)
    for batch in (images[:1], images[:2]):
        if protocol.needs_gradients and not has_gradient(model, batch):
            raise BenchError(
                f"model {name} has no gradient, which suite {suite.name} needs; the suites blackbox and corruptions "
                "judge it without."
            )
        if protocol.needs_second_derivatives:
            require_second_derivatives(model, name, batch, suite.name)
    try:
        protocol.require_net(model, images[:2])
    except BenchError as error:
        raise BenchError(f"suite {suite.name} cannot judge model {name}: {error}") from error
