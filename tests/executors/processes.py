"""Looking at other processes of this machine."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def descendants(process: int) -> set[int]:
    """Processes that `process` has started, and those that these have."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found, size = {process}, 0
    while len(found) > size:
        size = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found - {process}


def is_gone(process: int) -> bool:
    """Ended, whether or not its parent has asked."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def require_gone(processes: Iterable[int]) -> None:
    """Soon, at least."""
    waiting = set(processes)
    for _ in range(200):
        waiting = {one for one in waiting if not is_gone(one)}
        if not waiting:
            return
        time.sleep(0.05)
    raise AssertionError(f"processes {waiting} are left")
