"""Answers that rest on evidence are found once, and anew as soon as anything that they rest on has changed."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from bench.leaderboard.evidence.remembered import file_digests, remembered


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda _: str(tmp_path / "cache"))
    return tmp_path / "cache" / "evidence"


def never() -> list[str]:
    raise AssertionError("it was found already")


def test_an_answer_is_found_once_and_anew_when_a_file_that_it_rests_on_changes(tmp_path: Path, cache: Path) -> None:
    run = tmp_path / "runs" / "a"
    run.mkdir(parents=True)
    (run / "manifest.json").write_text("{}")
    before = file_digests(tmp_path, ["a"])
    assert remembered("ranks", before, lambda: ["first"]) == ["first"] == remembered("ranks", before, never)
    with pytest.raises(AssertionError):
        remembered("doubts", before, never)
    for name, content in (("manifest.json", "{ }"), ("examples.parquet", "")):
        (run / name).write_text(content)
        after = file_digests(tmp_path, ["a"])
        assert after != before
        before = after
    assert remembered("ranks", before, lambda: ["second"]) == ["second"]
    assert len(list(cache.glob("*.json"))) == 2


def test_a_damaged_or_read_only_cache_costs_time_and_nothing_else(cache: Path) -> None:
    assert remembered("ranks", {}, lambda: ["found"]) == ["found"]
    (kept,) = cache.glob("*.json")
    kept.write_text("{")
    assert remembered("ranks", {}, lambda: ["again"]) == ["again"] == remembered("ranks", {}, never)
    for path in cache.iterdir():
        path.unlink()
    cache.rmdir()
    cache.write_text("a file where the folder should be")
    assert remembered("ranks", {}, lambda: ["still"]) == ["still"]
