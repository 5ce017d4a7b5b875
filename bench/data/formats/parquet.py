"""Hugging Face data sets on disk: parquet files with a column of encoded images and one of labels.

Read with pyarrow alone: nothing that a file says is run, and no path that it names is opened. Labels are read at once;
images one row group at a time, when asked for, so that memory is bounded by the row group (100 images, as `datasets`
writes them).
"""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from bench.core.errors import BenchError, reason_of
from bench.core.memory import free_memory
from bench.core.names import require_known
from bench.data.formats.decoding import Preparation
from bench.data.formats.encoded import EncodedImages, open_images

_MOST_CLASSES = 1 << 20
_SHARD = re.compile(r"(.*)-(\d{1,9})-of-(\d{1,9})\.parquet")


def read_parquet(
    files: Sequence[Path], preparation: Preparation, image_size: int | None, *, image: str | None, label: str | None
) -> tuple[Tensor | EncodedImages, Tensor, tuple[str, ...]]:
    """The images of parquet files, in the order of the rows: small ones in memory, others read when asked for.

    Args:
        files: one split, in order.
        image, label: columns; None finds them.
        image_size: the side every image must have if the preparation leaves sizes; None takes the first image's.

    Returns:
        images (N, C, H, W), labels (N,) int64, class names: those of the schema's metadata, or the numbers.

    Raises:
        BenchError: a damaged file, no such columns, several that would do, images that are not stored in the file.
    """
    _require_all_shards(files)
    schema = _schema(files[0])
    features = _features(schema, files[0])
    image = _image_column(schema, image, files[0])
    label = _label_column(schema, features, label, files[0])
    rows = ParquetImages.open(files, image)
    names = _class_names(features, label)
    for path in files[1:]:
        if _class_names(_features(_schema(path), path), label) != names:
            raise BenchError(f"{path} names other classes than {files[0]}, or in another order; store the split anew.")
    labels, names = _labels(files, label, names)
    if len(rows) == 0:
        raise BenchError(f"{files[0]} holds no image.")
    return open_images(rows, preparation, image_size), labels, names


@dataclass(slots=True)
class ParquetImages:
    """The encoded images of a column of structs `{bytes, path}`, by row number; keeps one row group.

    Attributes:
        groups: (file, row group) in order, `ends`: the number of rows up to the end of each.
    """

    files: Sequence[Path]
    column: str
    groups: list[tuple[Path, int]]
    ends: list[int]
    _kept: tuple[int, Any] | None = field(default=None, repr=False)

    @classmethod
    def open(cls, files: Sequence[Path], column: str) -> ParquetImages:
        groups, counts = [], []
        for path in files:
            metadata = _guarded(path, lambda path=path: _file(path).metadata)
            for group in range(metadata.num_row_groups):
                groups.append((path, group))
                counts.append(max(0, int(metadata.row_group(group).num_rows)))
        return cls(files, column, groups, list(accumulate(counts)))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def content(self, number: int) -> bytes:
        group = bisect.bisect_right(self.ends, number)
        if self._kept is None or self._kept[0] != group:
            self._kept = None  # before the next is read: never two in memory
            self._kept = (group, self._read(group))
        row = number - (self.ends[group - 1] if group else 0)
        cells = self._kept[1]
        content = cells[row].as_py() if row < len(cells) else None
        if not isinstance(content, bytes):
            raise BenchError(
                f"{self.name(number)} has no bytes; store the images in the parquet file, not their paths."
            )
        return content

    def name(self, number: int) -> str:
        path, _ = self.groups[bisect.bisect_right(self.ends, number)]
        return f"{path} row {number}"

    def _read(self, group: int) -> Any:
        path, index = self.groups[group]

        def read() -> Any:
            file = _file(path)
            size, free = file.metadata.row_group(index).total_byte_size, free_memory()
            if free is not None and size > free:
                raise MemoryError(f"row group {index} unpacks to {size / 2**30:.1f} GiB; store smaller ones")
            column = file.read_row_group(index, columns=[self.column]).column(0)
            return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column

        return _guarded(path, read)


def _require_all_shards(files: Sequence[Path]) -> None:
    """Raise BenchError where names such as `test-00000-of-00002.parquet` say that there are more files than these."""
    numbers = [match for match in (_SHARD.fullmatch(path.name) for path in files) if match]
    for first, count in {(match[1], match[3]) for match in numbers}:
        found = {int(match[2]) for match in numbers if (match[1], match[3]) == (first, count)}
        if len(found) != int(count):
            missing = next(number for number in range(int(count) + 1) if number not in found)
            raise BenchError(
                f"{files[0].parent} has {len(found)} of {int(count)} files {first}-*-of-{count}.parquet; number "
                f"{missing} is missing."
            )


def _file(path: Path) -> Any:
    return pq.ParquetFile(path, memory_map=False, pre_buffer=False)


def _guarded(path: Path, read: Any) -> Any:
    try:
        return read()
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError, MemoryError, OverflowError) as error:
        raise BenchError(f"cannot read {path} as parquet: {reason_of(error)}.") from error


def _schema(path: Path) -> Any:
    return _guarded(path, lambda: _file(path).schema_arrow)


def _features(schema: Any, path: Path) -> dict[str, Any]:
    """What `datasets` says of the columns, in the schema's metadata; nothing where it did not write the file."""
    stated = (schema.metadata or {}).get(b"huggingface")
    if stated is None:
        return {}
    try:
        features = json.loads(stated)["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BenchError(f"{path} has metadata of Hugging Face that cannot be read ({error!r}).") from error
    return features if isinstance(features, dict) else {}


def _image_column(schema: Any, asked: str | None, path: Path) -> str:
    def holds_images(kind: Any) -> bool:
        kind = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    return _choose([entry.name for entry in schema if holds_images(entry.type)], asked, "image", path)


def _label_column(schema: Any, features: dict[str, Any], asked: str | None, path: Path) -> str:
    def is_label(kind: Any) -> bool:
        return bool(pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))

    usable = [entry.name for entry in schema if is_label(entry.type)]
    named = [name for name in usable if isinstance(features.get(name), dict) and features[name].get("names")]
    known = [name for name in usable if name in ("label", "labels")]
    return _choose(usable if asked is not None else (known[:1] or named or usable), asked, "label", path)


def _choose(usable: list[str], asked: str | None, what: str, path: Path) -> str:
    if asked is not None:
        if asked not in usable:
            raise BenchError(f"{path} has no {what} column {asked!r}; there are {', '.join(usable) or 'none'}.")
        return asked
    if len(usable) != 1:
        found = f"several columns that could be the {what}: {', '.join(usable)}" if usable else f"no {what} column"
        raise BenchError(f"{path} has {found}; name it as {what}_column in a TOML file of the data set.")
    return usable[0]


def _labels(files: Sequence[Path], column: str, names: tuple[str, ...] | None) -> tuple[Tensor, tuple[str, ...]]:
    """(N,) int64 of all files, and the class names; where none are given, in sorted order, or the numbers."""
    values: list[Any] = []
    for path in files:
        table = _guarded(path, lambda path=path: _file(path).read(columns=[column]))
        part = _guarded(path, table.column(0).to_pylist)
        if any(value is None for value in part):
            raise BenchError(f"{path} has rows without a {column}; leave them out.")
        values += part
    if len({type(value) for value in values}) > 1:
        raise BenchError(f"{files[0]} and its neighbours have numbers and strings as {column}; store the split anew.")
    if values and isinstance(values[0], str):
        names = names or tuple(sorted(set(values)))
        numbers = {name: number for number, name in enumerate(names)}
        require_known(values, numbers, f"class in {files[0]}")
        return torch.tensor([numbers[value] for value in values]), names
    if values and not (min(values) >= 0 and max(values) < _MOST_CLASSES):
        raise BenchError(
            f"{files[0]} has labels from {min(values)} to {max(values)}; -1 stands for labels that are kept back, use "
            "another split."
        )
    names = names or tuple(str(number) for number in range(max(values, default=-1) + 1))
    return torch.from_numpy(np.asarray(values, dtype=np.int64)), names


def _class_names(features: dict[str, Any], label: str) -> tuple[str, ...] | None:
    feature = features.get(label)
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(str(name) for name in names) if isinstance(names, list) and names else None
