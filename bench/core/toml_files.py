"""Reading and writing TOML that comes from outside: refused with one clear line, never half understood."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import BaseModel, ValidationError

from bench.core.errors import BenchError
from bench.core.files import write_atomically

Model = TypeVar("Model", bound=BaseModel)


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Parse a TOML file; raise BenchError naming `what` and the line if it is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BenchError(f"{what} {path} does not exist.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"cannot read {what} {path}: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise BenchError(f"{what} {path} is not valid TOML: {error}.") from error


def write_toml(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, tomli_w.dumps(content).encode())


def validate(model: type[Model], content: dict[str, Any], where: str) -> Model:
    """Build `model` from parsed TOML; every problem goes into one line of a BenchError."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise BenchError(f"{where}: {explain(error)}.") from error


def explain(error: ValidationError) -> str:
    """All problems of a pydantic error in one line: where, and what is expected."""
    problems = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"])
        reason = "unknown key" if problem["type"] == "extra_forbidden" else problem["msg"].removeprefix("Value error, ")
        problems.append(f"{place}{': ' if place else ''}{reason[0].lower()}{reason[1:]}")
    return " ".join("; ".join(problems).split())
