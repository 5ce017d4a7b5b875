"""A row of leaderboard.csv: what is written and what is read obey one model, so that what was accepted can be read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, TypeAdapter, ValidationError
from typing_extensions import TypedDict


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


class Row(TypedDict):
    """One metric of one run; a share is a fraction, `eps` in pixels of [0, 1], `seconds` are the run's."""

    run_id: RunId
    finished_at: Name
    model: Name
    method: Name
    dataset: Name
    split: Name
    suite: Name
    suite_version: Whole
    metric: Name
    attack: Name
    norm: Name
    eps: Radius
    value: Number
    ci_low: Number
    ci_high: Number
    n_examples: Whole
    seed: Whole
    model_sha256: Name
    data_sha256: Name
    suite_sha256: Name
    dependencies_sha256: Name
    bench_version: Name
    commit: Name
    torch_version: Name
    device: Name
    precision: Name
    seconds: Finite
    schema_version: Whole


COLUMNS = tuple(Row.__annotations__)
_ROWS = TypeAdapter(list[Row])


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
