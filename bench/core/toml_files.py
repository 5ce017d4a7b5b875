"""Reading and writing TOML that comes from outside: refused with one clear line, never half understood."""

from __future__ import annotations

import datetime
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from bench.core.errors import BenchError
from bench.core.files import open_regular, write_atomically

Model = TypeVar("Model", bound=BaseModel)

LARGEST_FILE = 1 << 22
"""Bytes of a TOML or JSON file from outside."""
DEEPEST = 20
"""Tables and lists inside each other."""
_LARGEST_INTEGER = 1 << 63


class Section(BaseModel):
    """A table of a file from outside: unknown keys, values of another type, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def read_text(path: Path, what: str) -> str:
    """The text of a small regular file; raises BenchError naming `what`."""
    try:
        with open_regular(path) as stream:
            content = stream.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise BenchError(f"{what} {path} is larger than {LARGEST_FILE >> 20} MiB, which none is.")
        return content.decode()
    except FileNotFoundError as error:
        raise BenchError(f"{what} {path} does not exist.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"cannot read {what} {path}: {getattr(error, 'strerror', None) or error}.") from error


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Parse a TOML file; raise BenchError naming `what` and the line if it is no TOML that could be meant."""
    text = read_text(path, what)
    try:
        return parse_toml(text)
    except ValueError as error:
        raise BenchError(f"{what} {path} is not valid TOML: {error}.") from error


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML; raises ValueError also for what no file of ours can mean: see `refuse_odd_values`."""
    try:
        content = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError(f"it is nested deeper than {DEEPEST} levels") from error
    refuse_odd_values(content)
    return content


def refuse_odd_values(content: Any) -> None:
    """Raise ValueError for deep nesting, for integers beyond 64 bits, and for dates, which no file of ours has."""
    level, depth = [content], 0
    while level:
        if depth > DEEPEST:
            raise ValueError(f"it is nested deeper than {DEEPEST} levels")
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner += value.values()
            elif isinstance(value, list):
                inner += value
            elif isinstance(value, int) and not -_LARGEST_INTEGER <= value < _LARGEST_INTEGER:
                raise ValueError("it has a whole number beyond 64 bits")
            elif isinstance(value, datetime.date | datetime.time):
                raise ValueError(f"it has the date or time {value}; write it as a string")
        level, depth = inner, depth + 1


def write_toml(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, tomli_w.dumps(content).encode())


def validate(model: type[Model], content: dict[str, Any], where: str) -> Model:
    """Build `model` from parsed TOML; every problem goes into one line of a BenchError."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = explain(error)
        raise BenchError(f"{where}: {problems}{'' if problems.endswith('?') else '.'}") from error


def explain(error: ValidationError) -> str:
    """All problems of a pydantic error in one line: where, and what is expected."""
    problems, places = [], [one["loc"] for one in error.errors()]
    for problem in error.errors():
        depth = len(problem["loc"])
        if any(len(place) > depth and place[:depth] == problem["loc"] for place in places):
            continue  # it follows from one inside: a list of one wrong item counts as an empty one
        place = ".".join(str(part) for part in problem["loc"])
        reason = "unknown key" if problem["type"] == "extra_forbidden" else problem["msg"].removeprefix("Value error, ")
        problems.append(f"{place}{': ' if place else ''}{reason[0].lower()}{reason[1:]}")
    return " ".join("; ".join(problems).split())
