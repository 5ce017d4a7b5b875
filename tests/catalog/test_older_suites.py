from __future__ import annotations

from pathlib import Path

import pytest

from bench.catalog.suites import read_suite, resolve_suites
from bench.core.errors import BenchError


def test_an_older_version_keeps_the_digest_that_rows_name(tmp_path: Path) -> None:
    (older,) = resolve_suites(["cross_norm@3"])
    assert older.sha256 == "2e3308a53d39cc21599f4ad6c9a343c40fb48800ffbc4230e1d2847681cf8628"
    assert (older.name, older.file.version) == ("cross_norm", 3)
    for wrong, said in (
        ("cross_norm@2", "has versions 5 and 3, not 2"),
        ("clean@9", "has version 1, not 9"),
        ("cros_norm@3", "mean cross_norm"),
    ):
        with pytest.raises(BenchError, match=said):
            resolve_suites([wrong])
    (tmp_path / "mine.toml").write_text('extends = "cross_norm@3"\nname = "mine"\nversion = 1\n')
    assert read_suite(tmp_path / "mine.toml").file.parameters == older.file.parameters


def test_todays_version_may_be_named_too(tmp_path: Path) -> None:
    assert resolve_suites(["cross_norm@5"]) == resolve_suites(["cross_norm"])
    (tmp_path / "mine.toml").write_text('extends = "cross_norm@5"\nname = "mine"\nversion = 2\n')
    (mine,) = resolve_suites(["mine@2"], tmp_path)
    assert mine.name == "mine" and mine.extends == (resolve_suites(["cross_norm"])[0].path,)
    (tmp_path / "a.toml").write_text('extends = "a@1"\nname = "a"\nversion = 1\n')
    with pytest.raises(BenchError, match="extends itself"):
        resolve_suites(["a@1"], tmp_path)
