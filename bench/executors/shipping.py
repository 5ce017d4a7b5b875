"""What travels to a worker that shares no files with this process: a plan, its model's bytes and its images.

A worker needs this package and nothing else: weights and program arrive as bytes and are laid out as a registry's
folder, so that they are opened by the same code, with the same digests checked, as here. Images travel as arrays, which
the workers of one machine share without copies.
"""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bench.catalog.cards import ModelCard
from bench.catalog.models import ModelEntry, load_model
from bench.catalog.state_files import state_bytes
from bench.catalog.weights import FILE_NAME as WEIGHTS
from bench.core.errors import BenchError
from bench.core.files import read_named, sha256_bytes
from bench.data import ImageDataset
from bench.nets.registry import architectures
from bench.protocols import protocol_for
from bench.runs.plan import RunPlan
from bench.runs.units import ready_model


@dataclass(frozen=True, slots=True)
class PackedPlan:
    """A plan without its images, device and protocol.

    Attributes:
        weights: of the model of `card`, as safetensors.
        model_program: the file that its card names, if any.
        others: fields of the plan that travel as they are, and the suite's own program.
    """

    card: ModelCard
    weights: bytes
    model_program: bytes | None
    others: dict[str, Any]


@dataclass(frozen=True, slots=True)
class PackedSplit:
    """A split of a data set; `images` (N, C, H, W) uint8 or float32, `labels` (N,) int64."""

    images: NDArray[np.uint8] | NDArray[np.float32]
    labels: NDArray[np.int64]
    words: dict[str, Any]


def pack_plan(plan: RunPlan) -> PackedPlan:
    """Everything of a plan that decides its verdicts, less the images; raises BenchError if its model cannot travel."""
    names = "suite", "examples", "seed", "batch_size", "precision", "registry", "dependencies", "answers", "request"
    others = {name: getattr(plan, name) for name in names} | {"program": plan.protocol.program}
    return PackedPlan(plan.entry.card, *_pack_model(plan.entry), others)


def pack_split(split: ImageDataset) -> PackedSplit:
    """The split as arrays; one whose images are read when asked for is read as a whole."""
    words = {"name": split.name, "split": split.split, "class_names": split.class_names, "source": split.source}
    return PackedSplit(split.stored(slice(None)).contiguous().numpy(), split.labels.contiguous().numpy(), words)


def unpack_split(packed: PackedSplit | ImageDataset) -> ImageDataset:
    """The split again. Its images lie in the arrays' own memory, which may be read-only; nothing writes there."""
    if isinstance(packed, ImageDataset):
        return packed
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")
        images = torch.from_numpy(packed.images)
    return ImageDataset(store=images, labels=torch.from_numpy(packed.labels.copy()), **packed.words)


def unpack_plan(
    packed: PackedPlan,
    device: torch.device,
    dataset: PackedSplit | ImageDataset,
    training: PackedSplit | ImageDataset | None,
) -> tuple[RunPlan, nn.Module]:
    """The plan on `device`, with its model loaded.

    Raises:
        BenchError: something that the model or the suite needs is not installed here, or a program cannot run here.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        # that a machine has no such folder, `ready_model` notices
        registry = packed.others["registry"]
        others = packed.others | {"registry": registry if registry is not None and registry.is_dir() else None}
        protocol = protocol_for(others["suite"])
        protocol.use_program(others.pop("program"))
        plan = RunPlan(
            entry=_unpack_model(packed, Path(temporary)),
            protocol=protocol,
            dataset=unpack_split(dataset),
            training=unpack_split(training) if training is not None else None,
            device=device,
            **others,
        )
        return plan, ready_model(plan)


def _pack_model(entry: ModelEntry) -> tuple[bytes, bytes | None]:
    """Its weights and its program."""
    card = entry.card
    if card.program is None and card.architecture not in architectures():
        raise BenchError(
            f"model {card.name} is only in this process's memory, so it cannot go to other workers; "
            "register it (`bench models add`), name it as FILE.py:FACTORY, or evaluate it here."
        )
    built = entry.build is not None
    weights = state_bytes(load_model(entry)) if built else read_named(entry.weights.path, "the weights")
    program = None if card.program is None or entry.program is None else read_named(entry.program, "the model")
    digests = card.weights.sha256, card.program and card.program.sha256
    # a file that has changed since the run was planned must not come back as every worker's failure
    for content, digest in zip((weights, program), digests, strict=True):
        if content is not None and sha256_bytes(content) != digest:
            raise BenchError(f"a file of model {card.name} has changed since the run was planned; start it again.")
    return weights, program


def _unpack_model(packed: PackedPlan, folder: Path) -> ModelEntry:
    entry = ModelEntry(packed.card, folder)
    (folder / WEIGHTS).write_bytes(packed.weights)
    if packed.model_program is None or packed.card.program is None:
        return entry
    path = folder / packed.card.program.file
    path.write_bytes(packed.model_program)
    return replace(entry, program=path)
