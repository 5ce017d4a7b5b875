"""Autoencoders of the image manifold: a folder with autoencoder.toml and weights, beside the models of its data set.

They lie in the same roots as models (`<root>/<dataset>/<id>/`) but are no classifiers, so the registry of models does
not list them.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from bench.catalog.cards import NAME, Weights
from bench.catalog.locations import model_roots
from bench.catalog.weights import WeightsFile
from bench.core.errors import BenchError, bench_command, reason_of
from bench.core.toml_files import Section, read_toml, validate, write_toml
from bench.nets.vae_gan import VaeGan

CARD = "autoencoder.toml"


class Quality(Section):
    """How well test images survive one encode-decode pass with the mean code."""

    # of an autoencoder that has come apart
    model_config = ConfigDict(allow_inf_nan=True)

    examples: int = Field(gt=0)
    explained_variance: float
    """1 - sum ||x - P(x)||^2 / sum ||x - mean image||^2."""
    mean_l2: float = Field(ge=0)
    """Mean L2 distance of a test image to its reconstruction, pixels in [0, 1]."""


class AutoencoderCard(Section):
    """autoencoder.toml, validated; unknown keys are refused."""

    schema_version: Literal[1]
    id: str = NAME
    dataset: str = NAME
    architecture: Literal["vae_gan"]
    architecture_parameters: dict[str, Any]
    weights: Weights
    quality: Quality
    training: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AutoencoderEntry:
    """A card and the folder it lies in."""

    card: AutoencoderCard
    folder: Path

    @property
    def weights(self) -> WeightsFile:
        return WeightsFile(self.card.weights, self.folder, f"autoencoder {self.card.dataset}/{self.card.id}")


def read_autoencoder(folder: Path) -> AutoencoderEntry:
    """Read and validate `folder/autoencoder.toml`; raises BenchError."""
    path = folder / CARD
    return AutoencoderEntry(
        validate(AutoencoderCard, read_toml(path, "autoencoder card"), f"autoencoder card {path}"), folder
    )


def write_autoencoder(folder: Path, card: AutoencoderCard) -> None:
    write_toml(folder / CARD, card.model_dump(exclude_none=True))


def list_autoencoders(registry: Path | None = None) -> list[AutoencoderEntry]:
    """All that lie in the roots of models, `registry` first, but for those whose card cannot be read."""
    entries = []
    for path in (path for root in model_roots(registry) for path in sorted(root.glob(f"[!.]*/[!.]*/{CARD}"))):
        with suppress(BenchError):  # says so where it is asked for
            entries.append(read_autoencoder(path.parent))
    return entries


def resolve_autoencoder(name: str, dataset: str, registry: Path | None = None) -> AutoencoderEntry:
    """The autoencoder `name` of a data set: a folder, or an id looked up in the roots of models, `registry` first.

    Raises:
        BenchError: there is none, or it was trained on another data set.
    """
    if (Path(name) / CARD).is_file():
        entry = read_autoencoder(Path(name))
    else:
        found = [root / dataset / name for root in model_roots(registry) if (root / dataset / name / CARD).is_file()]
        if not found:
            raise BenchError(
                f"there is no autoencoder {name} of {dataset}; train it with `"
                + bench_command("train", recipe="vae_gan", id=name, dataset=dataset, output="DIR")
                + "` and set BENCH_REGISTRY=DIR."
            )
        entry = read_autoencoder(found[0])
    if entry.card.dataset != dataset:
        raise BenchError(
            f"autoencoder {entry.folder} was trained on {entry.card.dataset}; the manifold of {dataset} needs one "
            f"trained on {dataset}."
        )
    return entry


def load_autoencoder(entry: AutoencoderEntry, device: torch.device | str = "cpu") -> VaeGan:
    """Build the net and load its weights, digest checked; eval mode, parameters without gradient.

    Raises:
        BenchError: the file is missing, is not the one the card names, is damaged, or does not fit the net.
    """
    content = entry.weights.read()
    try:
        net = VaeGan(**entry.card.architecture_parameters)
        net.load_state_dict(load_safetensors(content), strict=True)
    except (SafetensorError, RuntimeError, TypeError, ValueError) as error:
        raise BenchError(f"weights {entry.weights.path} do not fit their card: {reason_of(error, 200)}.") from error
    net.requires_grad_(False)
    return net.eval().to(device)
