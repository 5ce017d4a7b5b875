"""Looking names up: wildcards select several, a wrong name suggests the nearest ones."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from bench.core.errors import BenchError
from bench.core.files import sha256_bytes

_MOST_LISTED = 40
_LONGEST = 80
SAFE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
"""The pattern of what can be a file's name on every system, as a model's id and a run's have to be."""


def is_safe_name(text: str) -> bool:
    return re.fullmatch(SAFE_NAME, text) is not None


def require_safe_name(name: str, what: str) -> str:
    """Return `name` if it can be a file's name on every system; raise BenchError otherwise."""
    if not is_safe_name(name):
        raise BenchError(f"{what} {name!r} is not a plain name; use letters, digits, '.', '_' and '-'.")
    return name


def safe_name(text: str) -> str:
    """A plain name made of any text, always the same; texts that differ in a letter or digit get names that differ."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("._-")
    lost = any(one.isalnum() and not one.isascii() for one in text) or len(name) > _LONGEST or not name
    if lost:
        digest = sha256_bytes(text.encode(errors="surrogateescape"))[:8]
        name = f"{name[:_LONGEST]}-{digest}".lstrip("._-")
    return name


def unknown_name(name: str, known: Iterable[str], what: str) -> BenchError:
    """The error for a name that nothing has, with the nearest known names in it."""
    names = sorted(known)
    folded = {one.casefold(): one for one in names}
    near = [folded[one] for one in difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.5)]
    if near:
        return BenchError(f"unknown {what} {name!r}; did you mean {' or '.join(near)}?")
    listed = ", ".join(names[:_MOST_LISTED]) if names else "none"
    if len(names) > _MOST_LISTED:
        listed += f" and {len(names) - _MOST_LISTED} more"
    return BenchError(f"unknown {what} {name!r}; known: {listed}.")


def require_known(names: str | Iterable[Any], known: Collection[Any], what: str) -> None:
    """Raise the error of `unknown_name` for the first of these names, or for this one, that is not known."""
    for name in [names] if isinstance(names, str) else names:
        if name not in known:
            raise unknown_name(str(name), known, what)


def natural_key(name: str) -> list[tuple[str, int]]:
    """Sorts names as people count: `seed2` before `seed10`."""
    return [(text, int(number or -1)) for text, number in re.findall(r"([^0-9]*)([0-9]*)", name)]


def select_names(patterns: Sequence[str], known: Sequence[str], what: str) -> list[str]:
    """Expand `all`, wildcards and plain names into known names, in the order given and each once.

    Raises:
        BenchError: a pattern matches nothing.
    """
    chosen: dict[str, None] = {}
    for pattern in patterns:
        matches = list(known) if pattern == "all" else [name for name in known if fnmatch.fnmatchcase(name, pattern)]
        if not matches:
            raise unknown_name(pattern, known, what)
        chosen.update(dict.fromkeys(matches))
    return list(chosen)
