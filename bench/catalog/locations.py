"""Where the shipped models and suites lie: in a checkout beside the package, in a wheel inside it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import bench
from bench.core.errors import BenchError
from bench.core.plugins import load_plugin, plugin_names

logger = logging.getLogger(__name__)


def shipped(kind: str) -> Path:
    """The folder of the shipped `models` or `suites`."""
    package = Path(bench.__file__).parent
    checkout = package.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / kind).is_dir():
        return checkout / kind
    return package / "_shipped" / kind


def model_roots(registry: Path | None = None) -> list[Path]:
    """Folders of models, `<root>/<dataset>/<id>/card.toml`: `registry`, BENCH_REGISTRY, plug-ins, the shipped ones."""
    if registry is not None and not registry.is_dir():
        raise BenchError(f"the registry {registry} is not a folder.", option="registry")
    named = [Path(part) for part in os.environ.get("BENCH_REGISTRY", "").split(os.pathsep) if part]
    for folder in named:
        if not folder.is_dir():
            raise BenchError(f"BENCH_REGISTRY names {folder}, which is not a folder.")
    return [*([registry] if registry is not None else []), *named, *plugin_model_roots(), shipped("models")]


def plugin_model_roots() -> list[Path]:
    """Folders of models that plug-ins announce in `bench.models`; what is no folder's path there is an architecture."""
    roots = []
    for name in plugin_names("bench.models"):
        try:
            found = load_plugin("bench.models", name)
        except BenchError as error:  # a broken plug-in must not hide the models of the others
            logger.warning("%s", error)
            continue
        if isinstance(found, str | Path):
            roots.append(Path(found))
    return roots
