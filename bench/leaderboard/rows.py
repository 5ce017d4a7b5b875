"""The columns of leaderboard.csv, declared once: file, rows of a run, checks and what older files lack follow from it.

What is written and what is read obey one model, so that what was accepted can be read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from bench.leaderboard.metrics import Direction, Metric, Prominence, Unit

SCHEMA_VERSION = 4


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it has characters that are not printed")
    return text


def _absent(value: Any) -> Any:
    """No number stands as nothing in the file, and as None or NaN in memory."""
    return None if value == "" or (isinstance(value, float) and math.isnan(value)) else value


Name = Annotated[str, StringConstraints(max_length=400), AfterValidator(_printable)]
RunId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\z", max_length=200)]
Whole = Annotated[int, Field(ge=0, lt=1 << 63)]
Finite = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Radius = Annotated[Finite | None, BeforeValidator(_absent)]
Number = Annotated[Annotated[float, Field(gt=-math.inf)] | None, BeforeValidator(_absent)]
"""Infinite where a distance is and no example was found."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        source: where in a run's manifest the value is, e.g. `card.method`; empty for what belongs to a metric.
        default: what it is in a file that is older than the column; None where every file has it.
    """

    name: str
    type: Any
    source: str = ""
    default: str | None = None

    @property
    def dtype(self) -> str:
        """As a frame has it."""
        return {Whole: "int64", Finite: "float64", Radius: "float64", Number: "float64"}.get(self.type, "str")


_DECLARED = (
    Column("run_id", RunId, "run_id"),
    Column("finished_at", Name, "finished_at"),
    Column("model", Name, "card.id"),
    Column("method", Name, "card.method"),
    Column("dataset", Name, "facts.dataset"),
    Column("split", Name, "facts.split"),
    Column("suite", Name, "facts.suite"),
    Column("suite_version", Whole, "facts.suite_version"),
    Column("metric", Name),
    Column("subject", Name),
    Column("attack", Name),
    Column("norm", Name),
    Column("eps", Radius),
    Column("value", Number),
    Column("ci_low", Number),
    Column("ci_high", Number),
    Column("n_examples", Whole),
    Column("direction", Direction),
    Column("unit", Unit),
    Column("prominence", Prominence),
    Column("seed", Whole, "facts.seed"),
    Column("model_sha256", Name, "facts.model_sha256"),
    Column("data_sha256", Name, "facts.data_sha256"),
    Column("suite_sha256", Name, "facts.suite_sha256"),
    Column("dependencies_sha256", Name, "dependencies_sha256", default=""),
    Column("bench_version", Name, "versions.bench"),
    Column("commit", Name, "versions.commit", default=""),
    Column("torch_version", Name, "versions.torch"),
    Column("device", Name, "device"),
    Column("precision", Name, "precision", default="float32"),
    Column("seconds", Finite, "seconds"),
    Column("schema_version", Whole),
)
COLUMNS = tuple(column.name for column in _DECLARED)
METRIC_COLUMNS = tuple(column.name for column in _DECLARED[:-1] if not column.source)
"""Those in which the rows of one run differ."""
DTYPES = {column.name: column.dtype for column in _DECLARED}
DEFAULTS = {column.name: column.default for column in _DECLARED if column.default is not None}
Row = dict[str, Any]
"""One metric of one run; a share is a fraction, `eps` in pixels of [0, 1], `seconds` are the run's."""
_ROW: Any = TypedDict("_ROW", {column.name: column.type for column in _DECLARED})  # type: ignore[misc]
_ROWS: TypeAdapter[list[Row]] = TypeAdapter(list[_ROW])  # type: ignore[arg-type]


def run_columns(manifest: Mapping[str, Any]) -> Row:
    """What all rows of a run share, as far as its manifest says it."""
    found = {}
    for column in _DECLARED:
        value: Any = manifest if column.source else None
        for part in column.source.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            found[column.name] = value
    return found


def run_rows(manifest: Mapping[str, Any], metrics: Sequence[Metric]) -> list[Row]:
    """The tidy rows of a finished run."""
    shared = DEFAULTS | run_columns(manifest)
    return [{**shared, **metric.as_dict(), "schema_version": SCHEMA_VERSION} for metric in metrics]


def checked_columns(lines: Sequence[Sequence[str]], read: Callable[[str], str]) -> dict[str, list[Any]]:
    """The columns of rows of cells, typed; each different cell is looked at once.

    Args:
        read: what text a cell stands for.

    Raises:
        ValueError: as `checked_rows`.
    """
    checked = {}
    try:
        for column, cells in zip(_DECLARED, zip(*lines, strict=True) if lines else [()] * len(COLUMNS), strict=True):
            different = list(dict.fromkeys(cells))
            typed = dict(zip(different, _adapter(column.type).validate_python(list(map(read, different))), strict=True))
            checked[column.name] = [typed[cell] for cell in cells]
    except ValidationError:
        checked_rows([dict(zip(COLUMNS, map(read, cells), strict=True)) for cells in lines])  # says where
        raise
    return checked


@lru_cache
def _adapter(kind: Any) -> TypeAdapter[list[Any]]:
    return TypeAdapter(list[kind])


def checked_rows(rows: Sequence[Any]) -> list[Row]:
    """The rows, typed; raises ValueError that says in one line which is wrong, where and why."""
    try:
        return _ROWS.validate_python(rows)
    except ValidationError as error:
        first = error.errors()[0]
        place, *column = first["loc"]
        run_id = str(rows[int(place)].get("run_id", ""))[:80]
        where = ".".join(str(part) for part in column[:1])
        raise ValueError(f"{where} of row {int(place) + 1}, run {run_id!r}: {first['msg']}") from None
