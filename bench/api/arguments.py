"""What callers pass, as the rooms below want it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from bench.catalog.sources import SourceOptions
from bench.core.errors import BenchError
from bench.core.names import unknown_name
from bench.protocols.clean_pass import require_unit_pixels


def source_options(given: dict[str, Any]) -> SourceOptions:
    """Keywords as the options of a model that is named by its source; raises BenchError for one that there is not."""
    known = SourceOptions.__slots__
    for name in given:
        if name not in known:
            raise unknown_name(name, known, "option")
    paths = {name: as_path(given[name]) for name in ("weights", "label_map", "data_dir") if given.get(name) is not None}
    tuples = {name: tuple(given[name]) for name in ("mean", "std", "classes") if given.get(name) is not None}
    return SourceOptions(**{**given, **paths, **tuples})


def as_path(path: Path | str | None) -> Path | None:
    """The path; None stays."""
    return None if path is None else Path(path)


def require_images(images: Tensor, labels: Tensor) -> None:
    """Raise BenchError unless they are images in [0, 1] and a label for each."""
    if images.dim() != 4 or len(images) == 0 or labels.shape != (len(images),):
        raise BenchError(
            f"images must be (N, C, H, W) and labels (N,), these are {tuple(images.shape)} and {tuple(labels.shape)}."
        )
    require_unit_pixels(images)
