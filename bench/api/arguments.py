"""What callers pass, as the rooms below want it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.catalog.sources import SourceOptions
from bench.core.errors import BenchError
from bench.core.names import unknown_name


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


def require_whole(**numbers: object) -> None:
    """Raise BenchError unless they are whole numbers from 1 on."""
    for name, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise BenchError(f"{name} {value!r} is not a whole number from 1 on.")
