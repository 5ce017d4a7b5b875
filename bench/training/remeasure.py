"""Measuring the gradients of a model that `bench train` made, and writing them into its card."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from bench.catalog.cards import ModelCard, write_card
from bench.catalog.models import ModelEntry, load_model
from bench.core.errors import BenchError
from bench.training.fitting import TrainingRequest, find_source, measure_gradients
from bench.training.recipes import make_recipe


def remeasure(
    entry: ModelEntry, device: torch.device, data_dir: Path | None = None, *, download: bool = False
) -> ModelEntry:
    """Write a fresh `[gradients]` section into the model's card: stability, and alignment where it has targets.

    Raises:
        BenchError: the card does not say how the model was trained, the training split is missing or another one than
            it was trained on, or the source of its target maps is not the one it had.
    """
    card = entry.card
    facts = card.training
    if facts is None:
        raise BenchError(f"the card of {card.name} has no [training] section, so its held-out examples are unknown.")
    recipe = make_recipe(facts.recipe, card.dataset, {**facts.parameters, **facts.schedule})
    request = TrainingRequest(
        recipe, card.dataset, entry.folder.parent.parent, device, card.id, facts.seed, data_dir, download
    )
    dataset = request.load("train")
    if dataset.sha256 != facts.data_sha256:
        raise BenchError(f"{card.name} was trained on other data than the {card.dataset} that was found here.")
    source = find_source(request, card.architecture_parameters)
    if source is not None and source.sha256 != facts.source_sha256:
        raise BenchError(f"the targets of {card.name} came from another {source.name} than the one found here.")
    gradients = measure_gradients(request, load_model(entry, device), dataset, source)
    measured = ModelCard.model_validate(card.model_dump() | {"gradients": gradients.model_dump()})
    write_card(entry.folder, measured)
    return dataclasses.replace(entry, card=measured)
