"""Training a recipe into a registry folder: data, targets, trainer, then weights, training.csv and card in one move."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

import bench
from bench.catalog.cards import Accuracy, ModelCard, Training, Weights, write_card
from bench.catalog.models import ModelEntry, list_models, load_model, resolve_models
from bench.core.devices import device_label
from bench.core.errors import BenchError
from bench.core.files import clear_disk_errors, sha256_bytes, write_atomically
from bench.core.names import require_safe_name
from bench.data import ImageDataset, dataset_spec, load_split
from bench.nets import build_net
from bench.training.methods import InterpretationRegularization
from bench.training.recipes import Recipe
from bench.training.target_maps import target_maps
from bench.training.trainer import CHECKPOINT, Progress, TrainingRun, describe_recipe, split_validation, train
from bench.training.validation import accuracy

Watcher = Callable[[Progress], None]


def train_and_publish(
    recipe: Recipe,
    dataset_name: str,
    output: Path,
    *,
    model_id: str | None = None,
    seed: int = 0,
    device: torch.device,
    data_dir: Path | None = None,
    download: bool = False,
    fresh: bool = False,
    on_progress: Watcher | None = None,
    on_targets: Callable[[int, int], None] | None = None,
) -> ModelEntry:
    """Train and write `output/<data set>/<id>/{weights.safetensors,training.csv,card.toml}`.

    Raises:
        BenchError: the data or the source model is missing, the folder is taken, or training failed.
    """
    name = require_safe_name(model_id or recipe.name, "model id")
    folder = output / dataset_name / name
    work = output / dataset_name / f".{name}.training"
    if folder.exists() and not fresh:
        raise BenchError(f"{folder} exists already; use --fresh to train it again, or --id for another name.")
    spec = dataset_spec(dataset_name)
    dataset = load_split(dataset_name, "train", data_dir=data_dir, download=download)
    if spec is None:
        raise BenchError(f"training on {dataset_name} needs a known data set; see `bench datasets`.")
    source = _source_entry(recipe, dataset_name, output)
    with clear_disk_errors(work):
        if fresh:
            shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True, exist_ok=True)
    maps = _targets(recipe, source, dataset, seed, device, on_targets)
    torch.manual_seed(seed)
    architecture_parameters = recipe.architecture_parameters(spec)
    model = build_net(recipe.schedule.architecture, architecture_parameters)
    model = model.to(device).to(memory_format=torch.channels_last)
    run = train(
        recipe, model, dataset, seed=seed, device=device, folder=work, target_maps=maps, on_progress=on_progress
    )
    weights = save_safetensors({key: value.cpu().contiguous() for key, value in model.state_dict().items()})
    test = load_split(dataset_name, "test", data_dir=data_dir, download=download)
    card = ModelCard(
        schema_version=1,
        id=name,
        method=recipe.name,
        dataset=dataset_name,
        description=recipe.summary,
        architecture=recipe.schedule.architecture,
        architecture_parameters=architecture_parameters,
        weights=Weights(sha256=sha256_bytes(weights), parameters=_count(model)),
        accuracy=Accuracy(
            validation=run.rows[-1]["validation_accuracy"],
            test=accuracy(model, test.pixels(slice(None)).to(device), test.labels.to(device)),
        ),
        training=_training_facts(recipe, run, dataset, source, seed, device),
    )
    write_atomically(work / "weights.safetensors", weights)
    write_card(work, card)
    _move_into_place(work, folder)
    return ModelEntry(card, folder)


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _source_entry(recipe: Recipe, dataset_name: str, output: Path) -> ModelEntry | None:
    """The model whose maps are the targets: from the output folder if it lies there, else from the registry."""
    name = recipe.method.source
    if name is None:
        return None
    beside = output / dataset_name / name
    if (beside / "card.toml").is_file():
        return resolve_models([str(beside.resolve())])[0]
    if name not in {entry.card.id for entry in list_models(dataset_name)}:
        raise BenchError(
            f"recipe {recipe.name} needs the model {dataset_name}/{name} for its target maps; train that first: "
            f"bench train --recipe {name} --dataset {dataset_name} --output {output}"
        )
    return resolve_models([name], dataset_name)[0]


def _targets(
    recipe: Recipe,
    source: ModelEntry | None,
    dataset: ImageDataset,
    seed: int,
    device: torch.device,
    on_targets: Callable[[int, int], None] | None,
) -> Tensor | None:
    if source is None or not isinstance(recipe.method, InterpretationRegularization):
        return None
    indices, _ = split_validation(len(dataset))
    net = load_model(source, device)
    return target_maps(
        recipe.method, net, source.card.weights.sha256, dataset, indices, seed=seed, device=device, progress=on_targets
    )


def _training_facts(
    recipe: Recipe, run: TrainingRun, dataset: ImageDataset, source: ModelEntry | None, seed: int, device: torch.device
) -> Training:
    return Training(
        recipe=recipe.name,
        **describe_recipe(recipe),
        seed=seed,
        data_sha256=dataset.sha256,
        training_examples=run.training_examples,
        validation_examples=run.validation_examples,
        source_model=source.card.name if source else None,
        source_sha256=source.card.weights.sha256 if source else None,
        bench_version=bench.__version__,
        torch_version=str(torch.__version__),
        device=device_label(device),
        threads=torch.get_num_threads(),
        minutes=round(run.seconds / 60, 2),
        finished_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _move_into_place(work: Path, folder: Path) -> None:
    with clear_disk_errors(folder):
        (work / CHECKPOINT).unlink(missing_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
        work.replace(folder)
