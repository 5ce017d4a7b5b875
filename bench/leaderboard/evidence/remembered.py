"""What takes long to find in evidence, kept in the user's cache folder by the digests of all that it rests on."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from bench.core.errors import BenchError
from bench.core.files import is_old, read_regular, sha256_bytes, sha256_file, user_cache, write_atomically

logger = logging.getLogger(__name__)
_PACKAGE = Path(__file__).parents[2]
_MOST = 500
"""Answers kept; of more, those that are older than a day go."""
Found = TypeVar("Found", bound=list[Any] | dict[str, Any])


def remembered(what: str, rests_on: Mapping[str, Any], find: Callable[[], Found]) -> Found:
    """What `find` says, or said when it last rested on the same.

    Args:
        rests_on: all that decides it but the code, which is added: values that JSON has.
        find: returns what JSON has too; what it raises is not kept.
    """
    content = json.dumps([what, rests_on, _code()], sort_keys=True)
    folder = user_cache("evidence")
    path = folder / f"{sha256_bytes(content.encode())}.json"
    with suppress(OSError, ValueError):
        found: Found = json.loads(read_regular(path))
        return found
    found = find()
    try:
        write_atomically(path, json.dumps(found).encode())
        kept = list(folder.glob("*.json"))
        for old in filter(is_old, kept if len(kept) > _MOST else ()):
            old.unlink(missing_ok=True)
    except (BenchError, OSError) as error:
        logger.info("%s are not kept: %s", what, error)
    return found


def file_digests(leaderboard: Path, run_ids: Iterable[str]) -> dict[str, list[str]]:
    """Run id -> digests of its manifest and its records, empty where there is no such file."""
    return {
        run_id: [_digest(leaderboard / "runs" / run_id / name) for name in ("manifest.json", "examples.parquet")]
        for run_id in run_ids
    }


def _digest(path: Path) -> str:
    try:
        return sha256_file(path) + (str(path.resolve()) if path.is_symlink() else "")
    except OSError:
        return ""


@cache
def _code() -> str:
    """Digest of this package's code, and of what plug-ins there are."""
    sources = [sha256_file(path) for path in sorted(_PACKAGE.rglob("*.py"))]
    groups = [group for group in metadata.entry_points().groups if group.startswith("bench.")]
    points = (point for group in groups for point in metadata.entry_points(group=group))
    plugins = [[point.group, point.name, point.dist.version if point.dist else ""] for point in points]
    return sha256_bytes(json.dumps([sources, sorted(plugins)]).encode())
