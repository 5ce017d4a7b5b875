"""Rows as a manifest's JSON has them: by column, so that names, and what many rows share, stand there once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from bench.leaderboard.metrics import KEY_COLUMNS, Metric

_NUMBERS = ("value", "ci_low", "ci_high")
_LISTS = frozenset({*_NUMBERS, "start"})
"""Never written once for all rows: they tell how many rows there are."""
_COUNTER = "counters/"


def metric_fields(flat: Any) -> Any:
    """A metric as JSON has it: its key not apart, and null where there is no number, or none that is finite."""
    if not isinstance(flat, dict):
        return flat
    key = {name: flat[name] for name in KEY_COLUMNS if name in flat}
    rest = {name: math.nan if value is None else value for name, value in flat.items() if name not in key}
    return rest | {"key": key}


def metric_columns(metrics: list[Metric]) -> dict[str, Any]:
    """Metrics as JSON has them, their numbers with six digits as in the rows; the records have them all."""
    rows = (metric.as_dict() for metric in metrics)
    return _in_columns([row | {name: row[name] and float(f"{row[name]:.6g}") for name in _NUMBERS} for row in rows])


def metric_rows(columns: Any) -> Any:
    """A dict for each metric, which is also what older manifests have; version 2 has a list for each column."""
    return _in_rows(columns) if isinstance(columns, dict) else columns


def unit_columns(units: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Work units by index as JSON has those of a finished run."""
    rows = []
    for index, unit in units.items():
        counters = {_COUNTER + name: count for name, count in unit.get("counters", {}).items()}
        rows.append({"index": index, **{name: value for name, value in unit.items() if name != "counters"}, **counters})
    return _in_columns(rows)


def unit_rows(units: Any) -> Any:
    """Work units by index, which is also what older manifests and those of unfinished runs have."""
    if not isinstance(units, dict) or not isinstance(units.get("start"), list):
        return units
    found = {}
    for row in _in_rows(units):
        said = {name: value for name, value in row.items() if value is not None}
        counters = {name.removeprefix(_COUNTER): said.pop(name) for name in list(said) if name.startswith(_COUNTER)}
        found[said.pop("index", None)] = said | ({"counters": counters} if counters else {})
    return found


def summed(counters: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The counters of several units together."""
    total: Counter[str] = Counter()
    for one in counters:
        total.update(one)
    return dict(total)


def _in_columns(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A column is a list, or a value that all rows have, or its `values` and which of them it `has` row by row, where
    few differ."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: _column(name, [row.get(name) for row in rows]) for name in names}


def _column(name: str, cells: list[Any]) -> Any:
    if name in _LISTS or any(isinstance(cell, list) for cell in cells):
        return cells
    places = {cell: place for place, cell in enumerate(dict.fromkeys(cells))}
    if len(places) == 1:
        return cells[0]
    return cells if 2 * len(places) > len(cells) else {"values": list(places), "has": [places[cell] for cell in cells]}


def _in_rows(columns: dict[str, Any]) -> list[dict[str, Any]]:
    found = {name: _cells(column) for name, column in columns.items()}
    lengths = {len(column) for column in found.values() if isinstance(column, list)}
    once = any(name in _LISTS and not isinstance(column, list) for name, column in found.items())
    if once or len(lengths) != (1 if found else 0):
        raise ValueError("its columns are no lists of one length")
    (count,) = lengths or {0}
    lists = (column if isinstance(column, list) else [column] * count for column in found.values())
    return [dict(zip(found, row, strict=True)) for row in zip(*lists, strict=True)]


def _cells(column: Any) -> Any:
    if not isinstance(column, dict):
        return column
    try:
        values = dict(enumerate(column["values"]))
        return [values[place] for place in column["has"]]
    except (LookupError, TypeError) as error:
        raise ValueError("its columns are no lists of one length") from error
