"""A net in memory as an entry that can be planned and run like one of the registry."""

from __future__ import annotations

import copy
from pathlib import Path

from torch import nn

from bench.catalog.cards import ModelCard, Weights
from bench.catalog.models import ModelEntry
from bench.catalog.sources import METHOD
from bench.catalog.state_files import state_bytes
from bench.core.files import sha256_bytes
from bench.core.names import require_safe_name
from bench.data import dataset_spec, load_split


def entry_of_net(net: nn.Module, dataset: str, model_id: str, data_dir: Path | None) -> ModelEntry:
    """The entry of a copy of `net`, in eval mode and float32; raises BenchError for a name that is none."""
    spec = dataset_spec(dataset)
    frozen = copy.deepcopy(net).cpu().float().eval()
    card = ModelCard(
        schema_version=1,
        id=require_safe_name(model_id, "model_id"),
        method=METHOD,
        dataset=require_safe_name(dataset, "data set"),
        num_classes=None if spec else load_split(dataset, "test", data_dir=data_dir).num_classes,
        architecture=type(net).__name__,
        weights=Weights(
            sha256=sha256_bytes(state_bytes(frozen)),
            parameters=max(1, sum(parameter.numel() for parameter in net.parameters())),
        ),
    )
    return ModelEntry(card, Path(), lambda: copy.deepcopy(frozen))
