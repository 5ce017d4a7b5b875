"""Training a recipe into a registry folder: the fit, then weights, training.csv and card in one move."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from bench.catalog.cards import Accuracy, ModelCard, Training, write_card
from bench.catalog.models import ModelEntry, load_model
from bench.catalog.state_files import weights_of
from bench.core.errors import BenchError
from bench.core.names import require_safe_name
from bench.data import ImageDataset
from bench.training.epochs import Progress
from bench.training.fitting import Fit, TrainingRequest, environment, find_source, fit, measure_gradients
from bench.training.measures import accuracy
from bench.training.recipes import departures, make_recipe
from bench.training.trainer import describe_recipe, split_validation


def train_and_publish(
    request: TrainingRequest,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_targets: Callable[[int, int], None] = lambda *_: None,
) -> ModelEntry:
    """Train and write `output/<data set>/<id>/{weights.safetensors,training.csv,card.toml}`.

    Raises:
        BenchError: the data or the source model is missing, the folder is taken, or training failed.
    """
    request.require_free()
    require_safe_name(request.method or request.recipe.name, "method")
    fitted = fit(request, on_progress=on_progress, on_targets=on_targets)
    card = _card(request, fitted)
    request.publish(fitted.run.model, lambda folder: write_card(folder, card))
    return ModelEntry(card, request.folder)


def _card(request: TrainingRequest, fitted: Fit) -> ModelCard:
    model, source, described = fitted.run.model, fitted.source, describe_recipe(request.recipe)

    def correct(data: ImageDataset, indices: Tensor | slice) -> float:
        return accuracy(model, data.pixels(indices).to(request.device), data.labels[indices].to(request.device))

    return ModelCard(
        schema_version=1,
        id=request.name,
        method=request.method or request.recipe.name,
        dataset=request.dataset,
        description=request.recipe.summary,
        architecture=request.recipe.schedule.architecture,
        architecture_parameters=fitted.net_parameters,
        weights=weights_of(model),
        accuracy=Accuracy(
            validation=correct(fitted.dataset, split_validation(len(fitted.dataset))[1]),
            test=correct(fitted.test, slice(None)),
        ),
        gradients=measure_gradients(request, model, fitted.dataset, source),
        training=Training(
            recipe=request.recipe.name,
            **described,
            departs="; ".join(departures(request.recipe.name, request.dataset, described)) or None,
            seed=request.seed,
            data_sha256=fitted.dataset.sha256,
            training_examples=fitted.run.training_examples,
            validation_examples=fitted.run.validation_examples,
            source_model=source.name if source else None,
            source_sha256=source.sha256 if source else None,
            **environment(request.device),
            minutes=round(fitted.run.seconds / 60, 2),
            finished_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        ),
    )


def remeasure(
    entry: ModelEntry, device: torch.device, data_dir: Path | None = None, *, download: bool = False
) -> ModelEntry:
    """Write a fresh `[gradients]` section into the model's card: stability, and alignment where it has targets.

    Raises:
        BenchError: the card does not say how the model was trained, the training split is missing or another one than
            it was trained on, or the source of its target maps is not the one it had.
    """
    card = entry.card
    training = card.training
    if training is None:
        raise BenchError(f"the card of {card.name} has no [training] section, so its held-out examples are unknown.")
    recipe = make_recipe(training.recipe, card.dataset, {**training.parameters, **training.schedule})
    request = TrainingRequest(
        recipe=recipe, dataset=card.dataset, output=entry.folder.parent.parent, device=device, model_id=card.id,
        seed=training.seed, data_dir=data_dir, download=download,
    )  # fmt: skip
    dataset = request.load("train")
    if dataset.sha256 != training.data_sha256:
        raise BenchError(f"{card.name} was trained on other data than the {card.dataset} that was found here.")
    source = find_source(request, card.architecture_parameters)
    if source is not None and source.sha256 != training.source_sha256:
        raise BenchError(f"the targets of {card.name} came from another {source.name} than the one found here.")
    gradients = measure_gradients(request, load_model(entry, device), dataset, source)
    measured = ModelCard.model_validate(card.model_dump() | {"gradients": gradients.model_dump()})
    write_card(entry.folder, measured)
    return dataclasses.replace(entry, card=measured)
