"""What callers pass, as the rooms below want it."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.catalog.sources import SourceOptions
from bench.core.errors import BenchError
from bench.core.names import unknown_name


def source_options(given: dict[str, Any]) -> SourceOptions:
    """Keywords as the options of a model that is named by its source; raises BenchError."""
    named = {name: given[name] for name in ("weights", "label_map", "data_dir") if given.get(name) is not None}
    paths = {name: one if isinstance(one, Mapping) else as_path(one) for name, one in named.items()}
    tuples = {name: several(given[name], name) for name in ("mean", "std", "classes") if given.get(name) is not None}
    return SourceOptions(**{**given, **paths, **tuples})


def require_options(given: Mapping[str, Any], function: Callable[..., Any]) -> None:
    """Raise BenchError for an option that no source of models has, naming the function's own keywords, too."""
    for name in given:
        if name not in SourceOptions.__slots__:
            raise unknown_name(name, {*SourceOptions.__slots__, *inspect.signature(function).parameters}, "option")


def several(values: Any, name: str) -> tuple[Any, ...]:
    """The entries of a sequence, a tensor or an array; a number alone is the only one."""
    values = values.tolist() if hasattr(values, "tolist") else values
    try:
        return (values,) if isinstance(values, int | float) else tuple(values)
    except TypeError as error:
        raise BenchError(f"{name} is a {type(values).__name__}; pass a list.") from error


def as_path(path: Path | str | None) -> Path | None:
    """The path; None stays."""
    try:
        return None if path is None else Path(path)
    except TypeError as error:
        raise BenchError(f"{path!r} is no path; pass a string or a pathlib.Path.") from error


def as_paths(paths: Path | str | Sequence[Path | str] | None) -> list[Path]:
    """One path or several; None are none."""
    given = [paths] if paths is None or isinstance(paths, str | Path) else list(paths)
    return [path for path in map(as_path, given) if path is not None]


def whole(value: Any, name: str, least: int = 1) -> int:
    """The number as Python's int; raises BenchError unless it is a whole one from `least` on."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or isinstance(value, bool):
        raise BenchError(f"{name} {value!r} is not a whole number from {least} on.")
    return number


def batches(value: Any) -> int | None:
    """A batch size: a whole number from 1 on; None for `auto` and for None, by device and memory."""
    return None if value is None or value == "auto" else whole(value, "batch_size")


def texts(values: Any, name: str) -> list[str]:
    """One string or several; raises BenchError."""
    found = [values] if isinstance(values, str) else several(values, name)
    for one in found:
        require_text(**{name: one})
    return list(found)


def require_text(**values: object) -> None:
    """Raise BenchError for what is no string."""
    for name, value in values.items():
        if not isinstance(value, str):
            raise BenchError(f"{name} is a {type(value).__name__}; pass its name, a string.")
