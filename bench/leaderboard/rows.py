"""The columns of leaderboard.csv, declared once: file, rows of a run, checks and what older files lack follow from it.

What is written and what is read obey one model, so that what was accepted can be read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from bench.core.names import SAFE_NAME
from bench.leaderboard.metrics import Direction, Prominence, Unit

if TYPE_CHECKING:
    from bench.leaderboard.evidence.manifest import Manifest

SCHEMA_VERSION = 5
_LONG_DIGEST = re.compile(r"\b([0-9a-f]{16})[0-9a-f]+")


def short_digest(text: str | None) -> str | None:
    """A digest, or commits and what follows each, as a row has it: the first 16 digits; the manifest has all."""
    return text and _LONG_DIGEST.sub(r"\1", text)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it has characters that are not printed")
    return text


def _known(value: float) -> float:
    if not value > -math.inf:
        raise ValueError(f"{value} is no result; a cell is empty where there is none")
    return value


def _absent(value: Any) -> Any:
    """No number stands as nothing in the file, and as None or NaN in memory."""
    return None if value == "" or (isinstance(value, float) and math.isnan(value)) else value


Name = Annotated[str, StringConstraints(max_length=400), AfterValidator(_printable)]
Digest = Annotated[Name, AfterValidator(short_digest)]
"""Older rows, and those of a run that is written now, have it whole."""
RunId = Annotated[str, StringConstraints(pattern=rf"^{SAFE_NAME}\z", max_length=200)]
Whole = Annotated[int, Field(ge=0, lt=1 << 63)]
Finite = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Radius = Annotated[Finite | None, BeforeValidator(_absent)]
Number = Annotated[Annotated[float, AfterValidator(_known)] | None, BeforeValidator(_absent)]
"""Infinite where a distance is and no example was found, or a plug-in's metric is."""


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
    Column("dataset", Name, "config.dataset"),
    Column("split", Name, "config.split"),
    Column("suite", Name, "config.suite"),
    Column("suite_version", Whole, "config.suite_version"),
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
    Column("seed", Whole, "config.seed"),
    Column("model_sha256", Digest, "config.model_sha256"),
    Column("data_sha256", Digest, "config.data_sha256"),
    Column("suite_sha256", Digest, "config.suite_sha256"),
    Column("dependencies_sha256", Digest, "config.dependencies_sha256", default=""),
    Column("bench_version", Name, "environment.bench"),
    Column("commit", Digest, "environment.commit", default=""),
    Column("torch_version", Name, "environment.torch"),
    Column("device", Name, "environment.device"),
    Column("precision", Name, "config.precision", default="float32"),
    Column("seconds", Finite, "result.seconds"),
    Column("schema_version", Whole),
)
COLUMNS = tuple(column.name for column in _DECLARED)
DIGEST_COLUMNS = frozenset(column.name for column in _DECLARED if column.type is Digest)
DTYPES = {column.name: column.dtype for column in _DECLARED}
DEFAULTS = {column.name: column.default for column in _DECLARED if column.default is not None}
Row = dict[str, Any]
"""One metric of one run; a share is a fraction, `eps` in pixels of [0, 1], `seconds` are the run's."""
_ROW: Any = TypedDict("_ROW", {column.name: column.type for column in _DECLARED})  # type: ignore[misc]
_ROWS: TypeAdapter[list[Row]] = TypeAdapter(list[_ROW])  # type: ignore[arg-type]


def run_columns(manifest: Manifest) -> Row:
    """What all rows of a run share, as far as its manifest says it."""
    found = {column: attrgetter(column.source)(manifest) for column in _DECLARED if column.source}
    return {
        column.name: short_digest(value) if column.type is Digest else value
        for column, value in found.items()
        if value is not None
    }


def run_rows(manifest: Manifest) -> list[Row]:
    """The tidy rows of a finished run."""
    shared = DEFAULTS | run_columns(manifest)
    return [{**shared, **metric.as_dict(), "schema_version": SCHEMA_VERSION} for metric in manifest.result.metrics]


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
        raise ValueError(
            f"{where} of row {int(place) + 1}, run {run_id!r}: {first['msg'].removeprefix('Value error, ')}"
        ) from None
