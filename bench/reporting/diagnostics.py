"""The checks behind `bench doctor`."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from bench.catalog.models import broken_cards, list_models, load_model
from bench.catalog.suites import list_suites
from bench.core.errors import BenchError, bench_command
from bench.core.packages import installed_version
from bench.core.version import code_version
from bench.data import describe_sources, load_split
from bench.leaderboard.evidence.doubts import board_doubts
from bench.leaderboard.table import FILE_NAME, read_leaderboard
from bench.protocols import protocol_for

_PACKAGES = (
    "torch", "torchvision", "numpy", "pandas", "pyarrow", "safetensors", "torchattacks", "pyautoattack", "captum",
)  # fmt: skip
_EXTRAS = {"foolbox": "foolbox", "timm": "timm", "onnxruntime": "onnx", "ray": "ray", "robustbench": "robustbench"}
"""Package -> the extra that brings it."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at; `detail` says what is there, or what is wrong and how to mend it."""

    subject: str
    ok: bool
    detail: str


def diagnose(leaderboard: Path, data_dir: Path | None, registry: Path | None = None) -> Iterator[Check]:
    """Look at everything a run needs; never raises for what it finds."""
    yield Check("ribench", True, f"{code_version()}, Python {platform.python_version()}, {platform.system()}")
    for package in _PACKAGES:
        version = installed_version(package)
        yield Check(package, version is not None, version or f"not installed; pip install {package}")
    yield Check("extras", True, _extras())
    gpus = [f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in range(torch.cuda.device_count())]
    yield Check("devices", True, ", ".join([f"cpu ({torch.get_num_threads()} threads)", *gpus]))
    yield _guarded(
        "embedded data", lambda: f"fashion_mnist test split, {len(load_split('fashion_mnist', 'test'))} images"
    )
    yield _guarded("data sets", lambda: _data_sets(data_dir))
    yield _guarded("models", lambda: _models(registry))
    yield _guarded("suites", _suites)
    yield _guarded("leaderboard", lambda: _leaderboard(leaderboard))


def _extras() -> str:
    """Which are installed, and how to get the others."""
    versions = {package: installed_version(package) for package in _EXTRAS}
    missing = [f"ribench[{_EXTRAS[package]}]" for package, version in versions.items() if version is None]
    said = ", ".join(f"{package} {version}" for package, version in versions.items() if version) or "none"
    if "ribench[robustbench]" in missing and find_spec("robustbench") is not None:
        said += "; the package robustbench here is a part of torchattacks, see docs/install.md"
    return f"{said}; pip install {' '.join(map(repr, missing))} adds more" if missing else said


def _data_sets(data_dir: Path | None) -> str:
    here: list[str] = []
    missing: list[str] = []
    for name, split, where, problem in describe_sources(data_dir):
        if problem:
            raise BenchError(problem)
        (here if where else missing).append(f"{name} {split}")
    absent = f"; not here: {', '.join(missing)} (allow their download, or name a data dir)" if missing else ""
    return f"here: {', '.join(here)}{absent}"


def _models(registry: Path | None) -> str:
    for error in broken_cards(registry):
        raise error
    entries = list_models(registry=registry)
    programs = [entry for entry in entries if entry.card.program is not None]
    for entry in entries:
        if entry not in programs:
            load_model(entry)
    command = bench_command("models", "verify", program="FILE")
    more = f"; {len(programs)} more need a program of yours: {command}" if programs else ""
    return f"{len(entries) - len(programs)} cards, all weights match their digests and load{more}"


def _suites() -> str:
    suites = list_suites()
    for suite in suites:
        protocol_for(suite)
    return f"{len(suites)} suites, all valid"


def _leaderboard(folder: Path) -> str:
    if not (folder / FILE_NAME).exists():
        return f"none yet in {folder}"
    rows = read_leaderboard(folder)
    runs = rows["run_id"].unique().tolist()
    gone = [run for run in runs if not (folder / "runs" / run / "manifest.json").is_file()]
    if gone and len(gone) < len(runs):  # where there is none of any, the rows came alone
        raise BenchError(
            f"{len(gone)} of {len(runs)} runs in {folder} have no evidence, {gone[0]} for one; restore it from version "
            "control, or take out their rows."
        )
    doubts = board_doubts(folder, rows)
    if doubts:
        raise BenchError(f"{len(doubts)} of {len(runs)} runs in {folder} do not match their evidence; {doubts[0]}")
    return f"{folder / FILE_NAME}, {len(rows)} rows of {len(runs)} runs"


def _guarded(subject: str, look: Callable[[], str]) -> Check:
    try:
        return Check(subject, True, look())
    except BenchError as error:
        return Check(subject, False, str(error))
