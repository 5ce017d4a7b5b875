from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.attacks.adapters.foolbox import import_foolbox


def test_foolbox_is_imported_where_no_git_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GitPython, which it imports, raises without git unless this variable tells it not to."""
    (tmp_path / "foolbox.py").write_text("import os\nVALUE = os.environ['GIT_PYTHON_REFRESH']\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("GIT_PYTHON_REFRESH", "to be put back")
    monkeypatch.delenv("GIT_PYTHON_REFRESH")
    monkeypatch.delitem(sys.modules, "foolbox", raising=False)
    assert import_foolbox().VALUE == "quiet"
    del sys.modules["foolbox"]
