"""Data sets: where they are looked for, how they are read, and the embedded Fashion-MNIST test split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.data.specs import DATASETS, DatasetSpec, known_spec

if TYPE_CHECKING:
    from bench.data.dataset import ImageDataset
    from bench.data.loading import describe_sources, load_split

__all__ = ["DATASETS", "DatasetSpec", "ImageDataset", "describe_sources", "known_spec", "load_split"]


def __getattr__(name: str) -> Any:
    """What reads images, loaded when first asked for: with torch, which takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module 'bench.data' has no attribute {name!r}")
    from bench.data import dataset, loading

    return getattr(dataset if name == "ImageDataset" else loading, name)
