"""Attacks and attribution methods in a file of the user's, `FILE.py:FUNCTION`; it runs only when the user names it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.catalog.programs import Program, parse_program, python_object
from bench.core.errors import BenchError, in_one_line, others_code
from bench.core.files import read_named, sha256_bytes
from bench.core.torch_state import plain_torch


@dataclass(frozen=True, slots=True)
class UserFile:
    """A Python file as it was read; it travels to other processes and runs there as the same bytes."""

    path: Path
    content: bytes = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> UserFile:
        """Read a file; raises BenchError."""
        return cls(path, read_named(path, "the program"))

    @property
    def sha256(self) -> str:
        return sha256_bytes(self.content)


def named_function(name: str) -> tuple[str, str] | None:
    """The file's name and the function's of `FILE.py:FUNCTION`, without the folder before; None for anything else."""
    program = parse_program(name)
    if program is None or program.kind != "python":
        return None
    return program.path.name, program.factory


@lru_cache(maxsize=64)
def load_function(name: str, file_name: str, function: str, file: UserFile | None) -> Callable[..., Any]:
    """The function of the file, which is run.

    Raises:
        BenchError: the user has not named this file, or it has no such function, or it fails.
    """
    if file is None or file.path.name != file_name:
        named = "" if file is None else f", not {file.path.name},"
        raise BenchError(
            f"{name} is code of a file, which runs only when you name the file{named} yourself.", option="program"
        )
    failed = others_code(lambda error: f"{file.path} cannot be loaded ({in_one_line(error)}).")
    with failed, plain_torch(), redirect_stdout(sys.stderr):  # what its code prints is no result of ours
        found: Callable[..., Any] = python_object(Program("python", file.path, function), file.content)
    return found
