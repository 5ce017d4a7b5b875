"""What a wheel and an sdist get besides the sources: the commit, so that an installation can name its code."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts `bench/_commit.txt` into what is built from a checkout; what is built from an sdist has the sdist's."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or (Path(self.root) / "bench" / "_commit.txt").is_file():
            return
        sys.path.insert(0, self.root)
        from bench.core.version import COMMIT_FILE, commit

        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        path = Path(self._folder.name) / COMMIT_FILE
        path.write_text(commit(), encoding="utf-8")
        build_data["force_include"][str(path)] = f"bench/{COMMIT_FILE}"
