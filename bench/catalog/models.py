"""The registry of models: listing cards, resolving names, loading weights with their digest checked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import nn

from bench.catalog.cards import ModelCard, read_card
from bench.catalog.locations import model_roots
from bench.core.errors import BenchError
from bench.core.files import sha256_bytes
from bench.core.names import select_names, unknown_name
from bench.data import DATASETS
from bench.nets import build_net

DEFAULT_DATASET = "fashion_mnist"


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A card and the folder it lies in."""

    card: ModelCard
    folder: Path

    @property
    def weights_path(self) -> Path:
        return self.folder / "weights.safetensors"


def list_models(dataset: str | None = None) -> list[ModelEntry]:
    """All registered models, sorted by full name; the first root that has a name wins."""
    entries: dict[str, ModelEntry] = {}
    for root in model_roots():
        for path in sorted(root.glob("*/*/card.toml")):
            entry = _read_entry(path.parent)
            if entry.card.name != f"{path.parent.parent.name}/{path.parent.name}":
                raise BenchError(f"model card {path} calls itself {entry.card.name}; folder and card must agree.")
            entries.setdefault(entry.card.name, entry)
    return [entries[name] for name in sorted(entries) if dataset is None or entries[name].card.dataset == dataset]


def resolve_models(patterns: Sequence[str], dataset: str | None = None) -> list[ModelEntry]:
    """The models that names, wildcards, `all`, or folders holding a card.toml stand for.

    A short name is looked up in `dataset` (default fashion_mnist), a full one (`mnist/at_l2`) where it says.

    Raises:
        BenchError: unknown name, or a full name of another data set than `dataset`.
    """
    if dataset is not None:
        known = {*DATASETS, *(entry.card.dataset for entry in list_models())}
        if dataset not in known and not any(_is_folder(pattern) for pattern in patterns):
            raise unknown_name(dataset, known, "data set")
    chosen: dict[str, ModelEntry] = {}
    for pattern in patterns:
        for entry in _resolve(pattern, dataset):
            if dataset is not None and entry.card.dataset != dataset:
                raise BenchError(f"model {entry.card.name} is for {entry.card.dataset}, not for --dataset {dataset}.")
            chosen[entry.card.name] = entry
    return list(chosen.values())


def _resolve(pattern: str, dataset: str | None) -> list[ModelEntry]:
    if _is_folder(pattern):
        return [_read_entry(Path(pattern))]
    by_name = {entry.card.name: entry for entry in list_models()}
    if "/" in pattern:
        return [by_name[name] for name in select_names([pattern], list(by_name), "model")]
    prefix = f"{dataset or DEFAULT_DATASET}/"
    short = {name.removeprefix(prefix): entry for name, entry in by_name.items() if name.startswith(prefix)}
    if not short:
        name = prefix.rstrip("/")
        raise BenchError(
            f"the registry has no model of {name}; train one (`bench train --dataset {name}`) or set BENCH_REGISTRY."
        )
    return [short[name] for name in select_names([pattern], list(short), f"{prefix.rstrip('/')} model")]


def _is_folder(pattern: str) -> bool:
    return (os.sep in pattern or pattern == ".") and (Path(pattern) / "card.toml").is_file()


def _read_entry(folder: Path) -> ModelEntry:
    return ModelEntry(read_card(folder), folder)


def load_model(entry: ModelEntry, device: torch.device | str = "cpu") -> nn.Module:
    """Build the net of a card and load its weights; eval mode, float32, parameters without gradient.

    No code of the weights file can run: only safetensors are read, after their digest is checked.

    Raises:
        BenchError: the file is missing, is not the one the card names, is damaged, or does not fit the net.
    """
    path = entry.weights_path
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BenchError(f"cannot read the weights {path}: {error.strerror}.") from error
    found = sha256_bytes(content)
    if found != entry.card.weights.sha256:
        raise BenchError(
            f"weights {path} do not match their card (sha256 {found[:12]}..., card says "
            f"{entry.card.weights.sha256[:12]}...); restore the file or publish a new card."
        )
    try:
        state = load_safetensors(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise BenchError(
            f"weights {path} are not a readable safetensors file ({error}); nothing was loaded."
        ) from error
    net = build_net(entry.card.architecture, entry.card.architecture_parameters)
    try:
        net.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise BenchError(f"weights {path} do not fit architecture {entry.card.architecture!r}: {reason}.") from error
    net.requires_grad_(False)
    return net.eval().to(device)
