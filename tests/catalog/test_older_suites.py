from __future__ import annotations

from pathlib import Path

import pytest

from bench.catalog.suites import read_suite, resolve_suites
from bench.core.errors import BenchError


def test_an_older_version_keeps_the_digest_that_rows_name(tmp_path: Path) -> None:
    (older,) = resolve_suites(["cross_norm@3"])
    assert older.sha256 == "2e3308a53d39cc21599f4ad6c9a343c40fb48800ffbc4230e1d2847681cf8628"
    assert (older.name, older.file.version) == ("cross_norm", 3)
    with pytest.raises(BenchError, match=r"unknown older suite 'cross_norm@2'.*cross_norm@3"):
        resolve_suites(["cross_norm@2"])
    (tmp_path / "mine.toml").write_text('extends = "cross_norm@3"\nname = "mine"\nversion = 1\n')
    assert read_suite(tmp_path / "mine.toml").file.parameters == older.file.parameters
