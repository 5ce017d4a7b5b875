"""Where the shipped models and suites lie: in a checkout beside the package, in a wheel inside it."""

from __future__ import annotations

import os
from pathlib import Path

import bench
from bench.core.errors import BenchError


def shipped(kind: str) -> Path:
    """The folder of the shipped `models` or `suites`."""
    package = Path(bench.__file__).parent
    checkout = package.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / kind).is_dir():
        return checkout / kind
    return package / "_shipped" / kind


def model_roots() -> list[Path]:
    """Folders of models, `<root>/<dataset>/<id>/card.toml`: the user's (BENCH_REGISTRY), then the shipped ones."""
    named = [Path(part) for part in os.environ.get("BENCH_REGISTRY", "").split(os.pathsep) if part]
    for folder in named:
        if not folder.is_dir():
            raise BenchError(f"BENCH_REGISTRY names {folder}, which is not a folder.")
    return [*named, shipped("models")]
