"""Adding a model to a registry folder, and checking cards against the weights and accuracies they name."""

from __future__ import annotations

import dataclasses
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from bench.catalog.cards import Accuracy, ModelCard, write_card
from bench.catalog.models import ModelEntry, entry_from_source, load_model, registered, resolve_models
from bench.catalog.programs import with_programs
from bench.catalog.sources import SourceOptions, describe_kinds, is_source
from bench.catalog.state_files import state_bytes, weights_of
from bench.core.errors import BenchError
from bench.core.files import clear_disk_errors, write_atomically
from bench.core.toml_files import validate
from bench.data import ImageDataset, load_split
from bench.protocols.clean_pass import clean_pass

_BATCH = 250
_STANDARD_ERRORS = 4.0
"""How far a re-measured accuracy may lie from the card's: a right card fails once in 16,000 looks."""


def add_model(
    model: str, registry: Path, *, dataset: str, source: SourceOptions, method: str, description: str | None,
    examples: int, device: torch.device, data_dir: Path | None = None,
) -> ModelEntry:  # fmt: skip
    """Write `registry/<data set>/<id>/{weights.safetensors,card.toml}` for a model named by its source.

    The card holds the clean accuracy on the first `examples` test images.

    Raises:
        BenchError: the source is no source or gives no net, the data set is not here, the model does not fit it, or
            the folder is taken; nothing has been written then.
    """
    if not is_source(model):
        raise BenchError(f"{model} names no source; use FILE.py:FACTORY, a file, or {describe_kinds()}.")
    test = load_split(dataset, "test", data_dir=data_dir, download=source.download)
    # a zoo knows how many outputs its net has; of a program the data set's number is asked
    if source.num_classes is None and model.split(":", 1)[0] not in ("timm", "torchvision", "hf-hub"):
        source = dataclasses.replace(source, num_classes=test.num_classes)
    entry = entry_from_source(model, dataset, source)
    folder = registry / entry.card.dataset / entry.card.id
    if folder.exists():
        raise BenchError(f"{folder} exists already; choose another name, or delete it.", option="model_id")
    net = load_model(entry, device)
    accuracy, count = clean_accuracy(net, entry.card.name, test, examples, device=device)
    told = {"method": method, "accuracy": Accuracy(test=accuracy, test_examples=count).model_dump()}
    told |= {} if description is None else {"description": description}
    card = validate(ModelCard, entry.card.model_dump() | told, f"model {model}")
    _publish(folder, card, state_bytes(net))
    return ModelEntry(card, folder)


def _publish(folder: Path, card: ModelCard, weights: bytes) -> None:
    """Card and weights appear together or not at all."""
    with clear_disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
        work.mkdir()
    try:
        write_atomically(work / "weights.safetensors", weights)
        write_card(work, card)
        with clear_disk_errors(folder):
            work.rename(folder)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def clean_accuracy(
    net: nn.Module, name: str, dataset: ImageDataset, examples: int, device: torch.device
) -> tuple[float, int]:
    """Clean accuracy on the first `examples` images, and how many there were; raises BenchError as a run would."""
    if examples < 1:
        raise BenchError(f"{examples} examples leave nothing to measure; use 1 or more.", option="examples")
    count, right = min(examples, len(dataset)), 0
    for begin in range(0, count, _BATCH):
        chosen = slice(begin, min(begin + _BATCH, count))
        images = dataset.pixels(chosen).to(device)
        predictions, _ = clean_pass(net, name, images, dataset.num_classes, batch_size=_BATCH)
        right += int((predictions == dataset.labels[chosen]).sum())
    return right / count, count


@dataclass(frozen=True, slots=True)
class CardVerdict:
    """What was found about one card."""

    model: str
    state: Literal["right", "wrong", "not checked"]
    detail: str


def verify_cards(
    names: Sequence[str], dataset: str | None = None, *, registry: Path | None = None, programs: Sequence[Path] = (),
    examples: int, device: torch.device, data_dir: Path | None = None, download: bool = False,
) -> list[CardVerdict]:  # fmt: skip
    """Load every model, or those that are named, measure its clean accuracy again, and compare both with its card.

    Raises:
        BenchError: unknown names, or a folder that is no registry.
    """
    if names:
        verdicts: list[CardVerdict] = []
        entries = resolve_models(names, dataset, registry=registry, programs=programs)
    else:
        entries, verdicts = _all_cards(dataset, registry, programs)
    datasets: dict[str, ImageDataset | BenchError] = {}
    for entry in entries:
        name = entry.card.dataset
        if name not in datasets:
            try:
                datasets[name] = load_split(name, "test", data_dir=data_dir, download=download)
            except BenchError as error:
                datasets[name] = error
        verdicts.append(_verify(entry, datasets[name], examples, device, download=download))
    return verdicts


def _all_cards(
    dataset: str | None, registry: Path | None, programs: Sequence[Path]
) -> tuple[list[ModelEntry], list[CardVerdict]]:
    """Every card there is, and a verdict for each that cannot even be read, so that one does not hide the others."""
    entries, verdicts = [], []
    for name, found in registered(registry).items():
        if isinstance(found, BenchError):
            verdicts.append(CardVerdict(name, "wrong", str(found)))
        elif dataset in (None, found.card.dataset):
            entries.append(found)
    return with_programs(entries, programs), verdicts


def _verify(
    entry: ModelEntry, dataset: ImageDataset | BenchError, examples: int, device: torch.device, *, download: bool
) -> CardVerdict:
    card = entry.card
    if card.program is not None and entry.program is None:
        return CardVerdict(card.name, "not checked", f"needs {card.program.file}; name that file if you trust it")
    if card.weights.url is not None and not download and not entry.weights.path.is_file():
        return CardVerdict(card.name, "not checked", "its weights are not on this machine, and no download is allowed")
    try:
        if download:
            entry.weights.fetch()
        net = load_model(entry, device)
    except BenchError as error:
        return CardVerdict(card.name, "wrong", str(error))
    parameters = weights_of(net).parameters
    if parameters != card.weights.parameters:
        return CardVerdict(card.name, "wrong", f"{parameters} parameters, card says {card.weights.parameters}")
    if isinstance(dataset, BenchError):
        return CardVerdict(card.name, "not checked", f"digest right and weights load, but {dataset}")
    try:
        accuracy, count = clean_accuracy(net, card.name, dataset, examples, device=device)
    except BenchError as error:
        return CardVerdict(card.name, "wrong", str(error))
    return _compare(card, accuracy, count, len(dataset))


def _compare(card: ModelCard, accuracy: float, count: int, total: int) -> CardVerdict:
    measured = f"clean accuracy {100 * accuracy:.1f} % on {count} images"
    stated = card.accuracy.test
    if stated is None:
        return CardVerdict(card.name, "right", f"{measured}; the card states none")
    # the same images must give the same share, but for images that lie within rounding of the decision
    seen = card.accuracy.test_examples or total
    (fewer, _), (more, share) = sorted([(count, accuracy), (seen, stated)])
    spread = max(share * (1.0 - share), 1.0 / fewer) * (1.0 / fewer - 1.0 / more)  # the fewer are among the more
    slack = 1.0 / count + 1e-3 if count == seen else _STANDARD_ERRORS * spread**0.5
    if abs(accuracy - stated) > slack:
        return CardVerdict(card.name, "wrong", f"{measured}, card says {100 * stated:.1f} %")
    return CardVerdict(card.name, "right", f"digest, shapes, {measured} (card {100 * stated:.1f} %)")
