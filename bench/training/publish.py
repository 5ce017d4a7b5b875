"""Training a recipe into a registry folder: data, targets, trainer, then weights, training.csv and card in one move."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

import bench
from bench.catalog.cards import Accuracy, Gradients, ModelCard, Training, Weights, write_card
from bench.catalog.models import ModelEntry, list_models, load_model, resolve_models
from bench.core.devices import device_label
from bench.core.errors import BenchError
from bench.core.files import clear_disk_errors, sha256_bytes, write_atomically
from bench.core.keyed_random import stream_key
from bench.core.names import require_safe_name
from bench.data import ImageDataset, dataset_spec, load_split
from bench.data.loading import Split
from bench.nets import build_net
from bench.training.measures import gradient_alignment, gradient_stability
from bench.training.methods import InterpretationRegularization
from bench.training.methods.interpretation import threshold_maps
from bench.training.recipe import Recipe
from bench.training.target_maps import target_maps
from bench.training.trainer import CHECKPOINT, Progress, TrainingRun, describe_recipe, split_validation, train
from bench.training.validation import accuracy

MEASURED_EXAMPLES = 1000
UNTRAINED = "untrained"
"""Source of target maps: a randomly initialised net, the control of the IR paper."""


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """What the user asked for, as the command line has it."""

    recipe: Recipe
    dataset: str
    output: Path
    device: torch.device
    model_id: str | None = None
    seed: int = 0
    data_dir: Path | None = None
    download: bool = False
    fresh: bool = False

    @property
    def name(self) -> str:
        return self.model_id or self.recipe.name

    @property
    def folder(self) -> Path:
        """Where the finished model lies."""
        return self.output / self.dataset / self.name

    @property
    def work(self) -> Path:
        """Where the unfinished one lies, so that a stopped training can go on."""
        return self.output / self.dataset / f".{self.name}.training"

    def load(self, split: Split) -> ImageDataset:
        return load_split(self.dataset, split, data_dir=self.data_dir, download=self.download)


def train_and_publish(
    request: TrainingRequest,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    on_targets: Callable[[int, int], None] | None = None,
) -> ModelEntry:
    """Train and write `output/<data set>/<id>/{weights.safetensors,training.csv,card.toml}`.

    Raises:
        BenchError: the data or the source model is missing, the folder is taken, or training failed.
    """
    require_safe_name(request.name, "model id")
    if request.folder.exists() and not request.fresh:
        raise BenchError(f"{request.folder} exists already; use --fresh to train it again, or --id for another name.")
    dataset, test = request.load("train"), request.load("test")
    net_parameters = _net_parameters(request)
    source = _find_source(request, net_parameters)
    _prepare_work_folder(request)
    maps = _targets(request, source, dataset, split_validation(len(dataset))[0], on_targets)
    torch.manual_seed(request.seed)
    model = build_net(request.recipe.schedule.architecture, net_parameters)
    model = model.to(request.device).to(memory_format=torch.channels_last)
    run = train(
        request.recipe, model, dataset, seed=request.seed, device=request.device, folder=request.work,
        target_maps=maps, on_progress=on_progress,
    )  # fmt: skip
    weights = _weights(model)
    card = _card(request, net_parameters, run, weights, dataset, test, source)
    write_atomically(request.work / "weights.safetensors", weights)
    write_card(request.work, card)
    _move_into_place(request)
    return ModelEntry(card, request.folder)


def _net_parameters(request: TrainingRequest) -> dict[str, Any]:
    spec = dataset_spec(request.dataset)
    if spec is None:
        raise BenchError(f"training on {request.dataset} needs a known data set; see `bench datasets`.")
    return request.recipe.architecture_parameters(spec)


def _prepare_work_folder(request: TrainingRequest) -> None:
    with clear_disk_errors(request.work):
        if request.fresh:
            shutil.rmtree(request.work, ignore_errors=True)
        request.work.mkdir(parents=True, exist_ok=True)


def _card(
    request: TrainingRequest,
    net_parameters: dict[str, Any],
    run: TrainingRun,
    weights: bytes,
    dataset: ImageDataset,
    test: ImageDataset,
    source: _Source | None,
) -> ModelCard:
    images, labels = test.pixels(slice(None)).to(request.device), test.labels.to(request.device)
    return ModelCard(
        schema_version=1,
        id=request.name,
        method=request.recipe.name,
        dataset=request.dataset,
        description=request.recipe.summary,
        architecture=request.recipe.schedule.architecture,
        architecture_parameters=net_parameters,
        weights=Weights(sha256=sha256_bytes(weights), parameters=_count(run.model)),
        accuracy=Accuracy(validation=run.rows[-1]["validation_accuracy"], test=accuracy(run.model, images, labels)),
        gradients=_gradients(request, run.model, dataset, source),
        training=_training_facts(request, run, dataset, source),
    )


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@dataclass(frozen=True, slots=True)
class _Source:
    """The net whose maps are the targets, by name and digest of its weights."""

    name: str
    sha256: str
    net: nn.Module


def _find_source(request: TrainingRequest, net_parameters: dict[str, Any]) -> _Source | None:
    """From the output folder if it lies there, else from the registry; `untrained` is built afresh."""
    name = request.recipe.method.source
    if name is None:
        return None
    if name == UNTRAINED:
        torch.manual_seed(stream_key(UNTRAINED, request.seed) & ((1 << 63) - 1))
        net = build_net(request.recipe.schedule.architecture, net_parameters).to(request.device)
        return _Source(name, sha256_bytes(_weights(net)), net)
    beside = request.output / request.dataset / name
    if (beside / "card.toml").is_file():
        entry = resolve_models([str(beside.resolve())])[0]
    elif name in {entry.card.id for entry in list_models(request.dataset)}:
        entry = resolve_models([name], request.dataset)[0]
    else:
        raise BenchError(
            f"recipe {request.recipe.name} needs the model {request.dataset}/{name} for its target maps; train that "
            f"first: bench train --recipe {name} --dataset {request.dataset} --output {request.output}"
        )
    return _Source(entry.card.name, entry.card.weights.sha256, load_model(entry, request.device))


def _weights(net: nn.Module) -> bytes:
    return save_safetensors({key: value.cpu().contiguous() for key, value in net.state_dict().items()})


def _targets(
    request: TrainingRequest,
    source: _Source | None,
    dataset: ImageDataset,
    indices: Tensor,
    on_targets: Callable[[int, int], None] | None = None,
) -> Tensor | None:
    method = request.recipe.method
    if source is None or not isinstance(method, InterpretationRegularization):
        return None
    return target_maps(
        method, source.net, source.sha256, dataset, indices,
        seed=request.seed, device=request.device, progress=on_targets,
    )  # fmt: skip


def _gradients(request: TrainingRequest, model: nn.Module, dataset: ImageDataset, source: _Source | None) -> Gradients:
    """Stability, and alignment where there are targets, on the first held-out examples."""
    indices = split_validation(len(dataset))[1][:MEASURED_EXAMPLES]
    images, labels = dataset.pixels(indices).to(request.device), dataset.labels[indices].to(request.device)
    method, maps = request.recipe.method, _targets(request, source, dataset, indices)
    aligned = None
    if maps is not None and isinstance(method, InterpretationRegularization):
        aligned = gradient_alignment(model, images, labels, threshold_maps(maps, method.threshold))
    stability = gradient_stability(model, images, labels, indices)
    return Gradients(examples=len(indices), stability=stability, target_cosine=aligned)


def _training_facts(
    request: TrainingRequest, run: TrainingRun, dataset: ImageDataset, source: _Source | None
) -> Training:
    return Training(
        recipe=request.recipe.name,
        **describe_recipe(request.recipe),
        seed=request.seed,
        data_sha256=dataset.sha256,
        training_examples=run.training_examples,
        validation_examples=run.validation_examples,
        source_model=source.name if source else None,
        source_sha256=source.sha256 if source else None,
        bench_version=bench.__version__,
        torch_version=str(torch.__version__),
        device=device_label(request.device),
        threads=torch.get_num_threads(),
        minutes=round(run.seconds / 60, 2),
        finished_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _move_into_place(request: TrainingRequest) -> None:
    with clear_disk_errors(request.folder):
        (request.work / CHECKPOINT).unlink(missing_ok=True)
        if request.folder.exists():
            shutil.rmtree(request.folder)
        request.work.replace(request.folder)
