"""Which code this is, and on what it runs: versions, the commit that it runs from or was built from, the CPU."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from functools import lru_cache
from pathlib import Path

import bench
from bench.core.packages import installed_version

COMMIT_FILE = "_commit.txt"
"""In the package, where hatch_build.py has put it into a wheel or an sdist."""
_DECISIVE = ("bench", "suites", "models")
"""Folders of the checkout whose changes can change a number."""
_PACKAGES = (
    "numpy", "scipy", "torchvision", "torchattacks", "pyautoattack", "captum", "foolbox", "timm", "onnx2torch",
    "onnxruntime",
)  # fmt: skip
"""Installed packages, besides torch, that nets, attacks, maps or statistics come from."""


@lru_cache(maxsize=1)
def commit() -> str:
    """40 hex digits, with `-dirty` where files of the checkout differ(ed) from it; empty where there is none."""
    package = Path(bench.__file__).parent
    root = package.parent
    if not (root / ".git").exists() or not (root / "pyproject.toml").is_file():
        built_from = package / COMMIT_FILE
        return built_from.read_text(encoding="utf-8") if built_from.is_file() else ""
    head = (_git(root, "rev-parse", "HEAD") or "").strip()
    # what git cannot say, as in a checkout that takes it too long, may differ
    clean = not head or _git(root, "status", "--porcelain", "--untracked-files=no", "--", *_DECISIVE) == ""
    return head + ("" if clean else "-dirty")


def code_version() -> str:
    """The package's version, with the commit as PEP 440's local part, e.g. `0.2.0+g3c3b9e6.dirty`."""
    head, _, dirty = commit().partition("-")
    return bench.__version__ + (f"+g{head[:12]}{'.' if dirty else ''}{dirty}" if head else "")


@lru_cache(maxsize=1)
def package_versions() -> dict[str, str]:
    """Name -> version of the packages beside torch that numbers come from, as far as they are installed."""
    return {name: version for name in _PACKAGES if (version := installed_version(name)) is not None}


@lru_cache(maxsize=1)
def cpu_name() -> str:
    """As its maker calls it where the system says so, else its kind, e.g. `x86_64`; empty where neither is known."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _git(root: Path, *arguments: str) -> str | None:
    """What git says; None where it cannot be asked, or fails."""
    # a hook's variables would lead to another repository
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(  # noqa: S603  (nothing of it comes from outside)
            ["git", "-C", str(root), *arguments],  # noqa: S607
            capture_output=True, text=True, check=False, timeout=10, env=environment,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout if done.returncode == 0 else None
