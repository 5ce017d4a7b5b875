"""Suite files: a protocol with its parameters pinned, a version, and the digest of both.

A suite that says `extends = "NAME"` (or a TOML file beside it) has all that the other has, except name, version and
description, and says what differs. `parameters`, `parameters.datasets` and each data set's section are merged key by
key; any other value, a list or a table of radii too, is replaced whole. A string such as "8/255" among the parameters
is that number; its text is kept for people.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from bench.catalog.cards import NAME
from bench.catalog.locations import shipped, suite_folders
from bench.core.bounds import Count, Version
from bench.core.errors import BenchError
from bench.core.files import sha256_bytes
from bench.core.names import require_known, select_names
from bench.core.threat import parse_fraction, replace_fractions
from bench.core.toml_files import Section, read_toml, validate


class SuiteFile(Section):
    """The frame of a suite file; `parameters` are checked by the protocol. Unknown keys are refused.

    Attributes:
        fractions: numbers of the parameters, as JSON has them, and the text that the file has for each.
    """

    schema_version: Literal[1]
    name: str = NAME
    version: Version
    protocol: str
    description: str = ""
    source: str = ""
    examples: Count
    parameters: dict[str, Any] = Field(default_factory=dict)
    fractions: dict[str, str] = Field(default_factory=dict)

    @field_validator("fractions")
    @classmethod
    def _are_what_they_say(cls, fractions: dict[str, str]) -> dict[str, str]:
        for number, text in fractions.items():
            if repr(parse_fraction(text)) != number:
                raise ValueError(f"{text!r} is not {number}")
        return fractions

    def reference(self, dataset: str) -> dict[str, float]:
        """Norm -> reference radius of a data set; empty where the suite names none."""
        found: Any = self.parameters
        for name in ("datasets", dataset, "reference"):
            found = found.get(name) if isinstance(found, dict) else None
        radii = found.items() if isinstance(found, dict) else ()
        return {str(norm): float(eps) for norm, eps in radii if isinstance(eps, int | float)}


@dataclass(frozen=True, slots=True)
class Suite:
    """A parsed suite file and where it lies; `extends` are the files that it extends, the nearest first."""

    file: SuiteFile
    path: Path
    extends: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def sha256(self) -> str:
        """Digest of what the suite does: of all its values but the texts; 8/255 is the number, however written."""
        content = self.file.model_dump(exclude={"description", "source", "fractions"})
        return sha256_bytes(json.dumps(content, sort_keys=True).encode())


def read_suite(path: Path, suite_path: Path | None = None, children: tuple[Path, ...] = ()) -> Suite:
    """Read one suite file, and what it extends; raises BenchError. `children` are files that extend this one."""
    fractions: dict[str, str] = {}
    content = read_toml(path, "suite")
    parameters = replace_fractions(content.get("parameters", {}), fractions)
    content |= {"parameters": parameters, "fractions": fractions} if fractions else {}
    if path.resolve() in children:
        raise BenchError(f"suite {path} extends itself, by way of {', '.join(one.name for one in children)}.")
    if "extends" not in content:
        return Suite(validate(SuiteFile, content, f"suite {path}"), path)
    name = content.pop("extends")
    if not isinstance(name, str):
        raise BenchError(f"suite {path}: extends must be the name of one suite, or a TOML file.")
    parent_path = path.parent / name
    if "@" in name:
        parent_path = _of_version(name, suite_path, (*children, path.resolve()))
    elif not name.endswith(".toml"):
        files = suite_files(suite_path)
        require_known(name, files, f"suite to extend in {path}")
        parent_path = files[name]
    parent = read_suite(parent_path, suite_path, (*children, path.resolve()))
    inherited = parent.file.model_dump(exclude={"name", "version", "description"})
    merged = _merge(inherited, content, depth=0)
    return Suite(validate(SuiteFile, merged, f"suite {path}"), path, (parent_path, *parent.extends))


def _merge(inherited: dict[str, Any], own: dict[str, Any], depth: int) -> dict[str, Any]:
    """Own values over the inherited ones; `parameters`, its `datasets`, and each of these are merged in turn."""
    merged = inherited | own
    if not depth and (texts := inherited.get("fractions", {}) | own.get("fractions", {})):
        merged["fractions"] = texts
    for key in inherited.keys() & own.keys() if depth < 3 else ():
        inner = depth == 2 or key == ("parameters", "datasets")[depth]
        if inner and isinstance(inherited[key], dict) and isinstance(own[key], dict):
            merged[key] = _merge(inherited[key], own[key], depth + 1)
    return merged


def suite_files(suite_path: Path | None = None) -> dict[str, Path]:
    """Name -> file of the shipped suites and those in the user's folders, sorted; a file is called as its suite.

    Raises:
        BenchError: a folder is none, or a name is there twice.
    """
    files: dict[str, Path] = {}
    for folder in suite_folders(suite_path):
        for path in folder.glob("[!.]*.toml"):
            if files.setdefault(path.stem, path) is not path:
                raise BenchError(f"suite {path} has the name of {files[path.stem]}; give it a name of its own.")
    return dict(sorted(files.items()))


def list_suites(suite_path: Path | None = None) -> list[Suite]:
    """The suites by name: the shipped ones, and those in `suite_path` and in the folders that BENCH_SUITES names."""
    return resolve_suites(["all"], suite_path)


def resolve_suites(patterns: Sequence[Suite | str], suite_path: Path | None = None) -> list[Suite]:
    """The suites that names, wildcards, `all` or paths of TOML files stand for; raises BenchError.

    Args:
        suite_path: a folder of suites, beside those that BENCH_SUITES names and the shipped ones.
    """
    chosen: dict[str, Suite] = {}
    for pattern in patterns:
        for suite in [pattern] if isinstance(pattern, Suite) else _find(pattern, suite_path):
            if chosen.setdefault(suite.name, suite).path.resolve() != suite.path.resolve():
                raise BenchError(f"two suites are named {suite.name}: {chosen[suite.name].path} and {suite.path}.")
    return list(chosen.values())


def _find(pattern: str, suite_path: Path | None) -> list[Suite]:
    if pattern.endswith(".toml") or "/" in pattern or os.sep in pattern:
        return [read_suite(Path(pattern), suite_path)]
    if "@" in pattern:
        return [read_suite(_of_version(pattern, suite_path), suite_path)]
    files = suite_files(suite_path)
    found = [read_suite(files[name], suite_path) for name in select_names([pattern], list(files), "suite")]
    for suite in found:
        if suite.name != suite.path.stem:
            raise BenchError(f"suite {suite.path} calls itself {suite.name}; file and suite must have one name.")
    return found


def _of_version(pattern: str, suite_path: Path | None, children: tuple[Path, ...] = ()) -> Path:
    """The file of one version of a suite, as cross_norm@3: today's, or a shipped one on which evidence rests."""
    older = {path.stem: path for path in (shipped("suites") / "older").glob("*.toml")}
    if pattern in older:
        return older[pattern]
    (name, _, version), files = pattern.partition("@"), suite_files(suite_path)
    require_known(name, files, "suite")
    newest = read_suite(files[name], suite_path, children).file.version
    if version == str(newest):
        return files[name]
    kept = sorted((int(stem.partition("@")[2]) for stem in older if stem.partition("@")[0] == name), reverse=True)
    known = f"versions {newest} and {' and '.join(map(str, kept))}" if kept else f"version {newest}"
    raise BenchError(f"suite {name} has {known}, not {version or 'none'}.")
