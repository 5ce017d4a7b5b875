"""What the tests of models named by their source share."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.catalog.locations import shipped
from bench.catalog.models import load_model, resolve_models
from bench.catalog.sources import SourceOptions

WEIGHTS = shipped("models") / "fashion_mnist" / "standard" / "weights.safetensors"
Images = tuple[Tensor, Tensor]


def logits_of(text: str, images: Tensor, options: SourceOptions | None = None, dataset: str | None = None) -> Tensor:
    (entry,) = resolve_models([text], dataset, options=options)
    with torch.no_grad():
        return load_model(entry)(images)
