"""Suite files: a protocol with its parameters pinned, a version, and the digest of both."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.catalog.cards import NAME
from bench.catalog.locations import shipped
from bench.core.bounds import Count, Version
from bench.core.errors import BenchError
from bench.core.files import sha256_bytes
from bench.core.names import select_names
from bench.core.toml_files import Section, read_toml, validate


class SuiteFile(Section):
    """The frame of a suite file; `parameters` are checked by the protocol. Unknown keys are refused."""

    schema_version: Literal[1]
    name: str = NAME
    version: Version
    protocol: str
    description: str = ""
    source: str = ""
    examples: Count
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Suite:
    """A parsed suite file and where it lies."""

    file: SuiteFile
    path: Path

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def sha256(self) -> str:
        """Digest of the content, not of comments or layout. The words about it don't count, what it does does."""
        content = self.file.model_dump(exclude={"description", "source"})
        return sha256_bytes(json.dumps(content, sort_keys=True).encode())


def read_suite(path: Path) -> Suite:
    """Read one suite file; raises BenchError."""
    return Suite(validate(SuiteFile, read_toml(path, "suite"), f"suite {path}"), path)


def list_suites() -> list[Suite]:
    """The shipped suites, sorted by name."""
    return [read_suite(path) for path in sorted(shipped("suites").glob("*.toml"))]


def resolve_suites(patterns: Sequence[str]) -> list[Suite]:
    """The suites that names, wildcards, `all` or paths of TOML files stand for; raises BenchError."""
    chosen: dict[str, Suite] = {}
    for pattern in patterns:
        if pattern.endswith(".toml") or os.sep in pattern:
            found = [read_suite(Path(pattern))]
        else:
            known = {suite.name: suite for suite in list_suites()}
            found = [known[name] for name in select_names([pattern], list(known), "suite")]
        for suite in found:
            if chosen.setdefault(suite.name, suite).path != suite.path:
                raise BenchError(f"two suites are named {suite.name}: {chosen[suite.name].path} and {suite.path}.")
    return list(chosen.values())
