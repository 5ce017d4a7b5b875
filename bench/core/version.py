"""Which code this is: the package's version, and the commit that it runs from or was built from."""

from __future__ import annotations

import os
import subprocess
from functools import lru_cache
from pathlib import Path

import bench

COMMIT_FILE = "_commit.txt"
"""In the package, where hatch_build.py has put it into a wheel or an sdist."""
_DECISIVE = ("bench", "suites", "models")
"""Folders of the checkout whose changes can change a number."""


@lru_cache(maxsize=1)
def commit() -> str:
    """40 hex digits, with `-dirty` where files of the checkout differ(ed) from it; empty where there is none."""
    package = Path(bench.__file__).parent
    root = package.parent
    if not (root / ".git").exists() or not (root / "pyproject.toml").is_file():
        built_from = package / COMMIT_FILE
        return built_from.read_text(encoding="utf-8") if built_from.is_file() else ""
    head = _git(root, "rev-parse", "HEAD").strip()
    dirty = bool(head) and bool(_git(root, "status", "--porcelain", "--untracked-files=no", "--", *_DECISIVE))
    return head + ("-dirty" if dirty else "")


def code_version() -> str:
    """The package's version, with the commit as PEP 440's local part, e.g. `0.2.0+g3c3b9e6.dirty`."""
    head, _, dirty = commit().partition("-")
    return bench.__version__ + (f"+g{head[:12]}{'.' if dirty else ''}{dirty}" if head else "")


def _git(root: Path, *arguments: str) -> str:
    """What git says; nothing where it cannot be asked."""
    # a hook's variables would lead to another repository
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(  # noqa: S603  (nothing of it comes from outside)
            ["git", "-C", str(root), *arguments],  # noqa: S607
            capture_output=True, text=True, check=False, timeout=10, env=environment,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout if done.returncode == 0 else ""
