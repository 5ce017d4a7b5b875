"""Runs that were stopped, and go on in another process."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.leaderboard.evidence import runs
from bench.leaderboard.evidence.doubts import board_doubts
from bench.leaderboard.evidence.manifest import read_manifest
from bench.leaderboard.evidence.runs import RunFolder
from bench.leaderboard.table import read_leaderboard
from tests.runs.test_execute import run


@pytest.mark.parametrize("stopped_at", [(RunFolder, "finish"), (runs.shutil, "rmtree")])
def test_a_run_stopped_between_its_rows_and_its_last_word_is_neither_doubled_nor_doubted(
    tmp_path: Path, tiny_suite: Path, monkeypatch: pytest.MonkeyPatch, stopped_at: tuple[object, str]
) -> None:
    def stop(*_: object, **__: object) -> None:
        patch.undo()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*stopped_at, stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, tiny_suite, examples=2)
    (folder,) = (tmp_path / "runs").iterdir()
    if stopped_at[0] is RunFolder:
        before = read_leaderboard(tmp_path)
        monkeypatch.setattr(runs, "now", lambda: "2030-01-01T00:00:00+00:00")
        outcome = run(tmp_path, tiny_suite, examples=2)
        assert outcome.folder == folder and outcome.resumed_units == 1
        assert len(read_leaderboard(tmp_path)) == len(before)
    assert read_manifest(folder).status == "finished" and not (folder / "parts").exists()
    assert board_doubts(tmp_path, read_leaderboard(tmp_path)) == []
