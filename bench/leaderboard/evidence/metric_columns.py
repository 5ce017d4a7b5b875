"""Metrics as a manifest's JSON has them: by column, so that names, and what many share, stand there once."""

from __future__ import annotations

import math
from typing import Any

from bench.leaderboard.metrics import KEY_COLUMNS, Metric

_NUMBERS = ("value", "ci_low", "ci_high")


def metric_fields(flat: Any) -> Any:
    """A metric as JSON has it: its key not apart, and null where there is no number, or none that is finite."""
    if not isinstance(flat, dict):
        return flat
    key = {name: flat[name] for name in KEY_COLUMNS if name in flat}
    return {name: math.nan if value is None else value for name, value in flat.items() if name not in key} | {
        "key": key
    }


def metric_columns(metrics: list[Metric]) -> dict[str, Any]:
    """Metrics as JSON has them: names stand there once; a column is a list, or its `values` and which of them it `has`
    row by row, where few differ."""
    rows = [metric.as_dict() for metric in metrics]
    return {name: _column(name, [row[name] for row in rows]) for name in (rows[0] if rows else ())}


def _column(name: str, cells: list[Any]) -> Any:
    places = {cell: place for place, cell in enumerate(dict.fromkeys(cells))}
    if name in _NUMBERS or 2 * len(places) > len(cells):
        return cells
    return {"values": list(places), "has": [places[cell] for cell in cells]}


def _cells(column: Any) -> Any:
    if not isinstance(column, dict):
        return column
    try:
        values = dict(enumerate(column["values"]))
        return [values[place] for place in column["has"]]
    except (LookupError, TypeError) as error:
        raise ValueError("its columns are no lists of one length") from error


def metric_rows(columns: Any) -> Any:
    """A dict for each metric, which is also what older manifests have; version 2 has a list for each column."""
    if not isinstance(columns, dict):
        return columns
    columns = {name: _cells(column) for name, column in columns.items()}
    lengths = {len(column) if isinstance(column, list) else -1 for column in columns.values()}
    if len(lengths) > 1 or -1 in lengths:
        raise ValueError("its columns are no lists of one length")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
