"""Where the shipped models and suites lie: in a checkout beside the package, in a wheel inside it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import bench
from bench.core.errors import BenchError
from bench.core.packages import load_plugin, plugin_names

logger = logging.getLogger(__name__)

_IN_WHEEL = "_shipped"


def shipped(kind: str) -> Path:
    """The folder of the shipped `models` or `suites`."""
    package = Path(bench.__file__).parent
    checkout = package.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / kind).is_dir():
        return checkout / kind
    return package / _IN_WHEEL / kind


def models_elsewhere() -> str:
    """Where to find models that an installed wheel does not have, for error lines; empty in a checkout."""
    if shipped("models").parent.name != _IN_WHEEL:
        return ""
    return (
        " A wheel has the main models of Fashion-MNIST, one seed each; the others are in the folder `models` of "
        "RIBench's repository, which BENCH_REGISTRY can name."
    )


def model_roots(registry: Path | None = None) -> list[Path]:
    """Folders of models, `<root>/<dataset>/<id>/card.toml`: `registry`, BENCH_REGISTRY, plug-ins, the shipped ones."""
    return [*_named_folders(registry, "registry", "BENCH_REGISTRY"), *plugin_model_roots(), shipped("models")]


def suite_folders(suite_path: Path | None = None) -> list[Path]:
    """Folders of suites: the shipped ones, `suite_path`, BENCH_SUITES; one that is named twice is there once."""
    folders = [shipped("suites"), *_named_folders(suite_path, "suite_path", "BENCH_SUITES")]
    return list({folder.resolve(): folder for folder in folders}.values())


def _named_folders(given: Path | None, option: str, variable: str) -> list[Path]:
    """The folder that the caller names, then those of an environment variable; raises BenchError for what is none."""
    if given is not None and not given.is_dir():
        raise BenchError(f"the {option.replace('_', ' ')} {given} is not a folder.", option=option)
    named = [Path(part) for part in os.environ.get(variable, "").split(os.pathsep) if part]
    for folder in named:
        if not folder.is_dir():
            raise BenchError(f"{variable} names {folder}, which is not a folder.")
    return [*([] if given is None else [given]), *named]


def folder_list(*folders: Path | None) -> str:
    """Those that are given, as BENCH_REGISTRY names them; raises BenchError for one that it cannot name."""
    given = [str(folder) for folder in folders if folder is not None]
    for folder in given:
        if os.pathsep in folder:
            raise BenchError(f"models cannot lie in {folder}: {os.pathsep!r} is between folders; choose another one.")
    return os.pathsep.join(given)


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
