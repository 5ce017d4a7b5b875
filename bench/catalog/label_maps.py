"""Label maps: which output of a net stands for which class of a data set, by the classes' names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.core.errors import BenchError
from bench.core.names import require_known
from bench.core.toml_files import read_text
from bench.data import DATASETS, load_split

LabelMap = Path | Mapping[str, int]


def outputs_of_classes(label_map: LabelMap, dataset: str, *, data_dir: Path | None, download: bool) -> tuple[int, ...]:
    """The net's output for each class of a data set, in the data set's own order.

    Args:
        label_map: a JSON file or what would stand in it, or the name of the data set that `dataset` is a subset of.
        data_dir, download: as of `load_split`, for the class names of a data set of the user's own.

    Raises:
        BenchError: no such data set, or the map does not fit it; see `read_label_map`.
    """
    spec = DATASETS.get(dataset)
    named = isinstance(label_map, Path) and not label_map.is_file()
    if named and spec is not None and spec.outputs and str(label_map) == spec.subset_of:
        return spec.outputs
    names = spec.class_names if spec is not None else ()
    names = names or load_split(dataset, "test", data_dir=data_dir, download=download).class_names
    return read_label_map(label_map, names, dataset)


def read_label_map(label_map: LabelMap, class_names: Sequence[str], dataset: str) -> tuple[int, ...]:
    """The outputs in the order of `class_names`; raises BenchError unless the map gives these alone whole numbers."""
    path = label_map if isinstance(label_map, Path) else "of this call"
    content = _content(label_map) if isinstance(label_map, Path) else dict(label_map)
    if not isinstance(content, dict) or not content:
        raise BenchError(f'the label map {path} must be a JSON object {{"class": output, ...}}.')
    twice = next((name for position, name in enumerate(class_names) if name in class_names[:position]), None)
    if twice is not None:
        raise BenchError(
            f"{dataset} has two classes called {twice!r}; name the outputs by position, such as 0,1,2.",
            option="classes",
        )
    require_known(content, class_names, f"class of {dataset} in the label map {path}")
    missing = [name for name in class_names if name not in content]
    if missing:
        raise BenchError(f"the label map {path} has no output for class {missing[0]!r} of {dataset}.")
    outputs = [content[name] for name in class_names]
    if not all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 1 << 31 for one in outputs):
        raise BenchError(f"the label map {path} must give a whole number from 0 for every class.")
    return tuple(outputs)


def _content(path: Path) -> Any:
    try:
        return json.loads(read_text(path, "label map"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BenchError(f"cannot read the label map {path}: {str(error)[:200]}.") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands in it twice")
    return found
