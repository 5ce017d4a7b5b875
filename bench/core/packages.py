"""Installed packages: optional ones, and plug-ins, which announce models, protocols, attacks and more by entry points.

An entry point is read only when its name or a list of its group is asked for, and only from packages that are
installed: no file of a registry, suite or data folder can name one.
"""

from __future__ import annotations

import importlib
import sys
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.core.errors import BenchError, in_one_line, is_interrupt


def plugin_names(group: str) -> list[str]:
    """The names that installed packages announce in a group, sorted; nothing is imported."""
    return sorted({point.name for point in _announced(group=group)})


def load_plugin(group: str, name: str) -> Any:
    """Import what the entry point `name` of a group stands for.

    Raises:
        BenchError: no package, or more than one, announces it, or its import fails.
    """
    points = list({point.value: point for point in _announced(group=group, name=name)}.values())
    if not points:
        raise BenchError(f"no installed package announces {name!r} in {group}.")
    if len(points) > 1:
        owners = ", ".join(sorted(_owner(point) for point in points))
        raise BenchError(f"several installed packages announce {name!r} in {group} ({owners}); uninstall all but one.")
    try:
        return points[0].load()
    except BaseException as error:
        if is_interrupt(error):
            raise
        raise BenchError(
            f"the plug-in {name!r} of {_owner(points[0])} ({group}) cannot be loaded ({in_one_line(error)}); mend or "
            "uninstall it."
        ) from error


def _announced(**asked: str) -> metadata.EntryPoints:
    places = tuple((place, _changed(place)) for place in sys.path)
    found: metadata.EntryPoints = _everything(places).select(**asked)
    return found


@lru_cache(maxsize=1)
def _everything(_: tuple[tuple[str, int], ...]) -> Any:
    """What all packages announce: all their metadata is read, which takes twenty times longer than to ask anew
    whether a folder of the path has changed."""
    return metadata.entry_points()


def _changed(place: str) -> int:
    try:
        return Path(place).stat().st_mtime_ns
    except OSError:
        return 0


def _owner(point: metadata.EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value


def installed_version(package: str) -> str | None:
    """As pip calls it; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def optional_import(module: str, what: str, install: str) -> Any:
    """Import `module`.

    Args:
        what: what needs it, the subject of the error line, e.g. `a timm model`.
        install: what pip should install.

    Raises:
        BenchError: it is not installed or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BenchError(
            f"{what} needs the package {module.split('.', 1)[0]} ({error}); install it: pip install '{install}'."
        ) from error
