from __future__ import annotations

import functools
import os
import signal
import time
from pathlib import Path

import pytest
from rich.console import Console

from bench.cli.output import progress as module
from bench.cli.output.progress import Display
from bench.leaderboard.evidence.manifest import read_manifest
from tests.executors.processes import start_bench


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_run_as_ctrl_c_does_with_a_word_on_what_is_kept(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    process = start_bench(
        "run", "--model", "standard", "--suite", "cross_norm", "--leaderboard", tmp_path, output=said,
        first=functools.partial(signal.signal, number, signal.SIG_DFL),  # what started the tests may ignore it: nohup
    )  # fmt: skip
    while not list(tmp_path.glob("runs/*/manifest.json")):
        time.sleep(0.05)
        assert process.is_alive()
    os.kill(process.pid or 0, number)
    process.join(60)
    error = said.read_text()
    assert process.exitcode == code and "Traceback" not in error
    assert f"interrupted by {number.name}: 0 % of standard under cross_norm is kept" in error
    assert "run the same command again to go on" in error
    (folder,) = (tmp_path / "runs").iterdir()
    assert read_manifest(folder).status == "interrupted"


def test_without_a_terminal_progress_is_a_plain_line_every_while(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "PLAIN_SECONDS", 0.02)
    with (tmp_path / "log").open("w") as stream:
        with Display(console=Console(file=stream, width=80)) as display:
            task = display.add_task("standard under tiny", total=100)
            display.update(task, completed=50, resumed=40)
            time.sleep(0.3)
        told = (tmp_path / "log").read_text()
    lines = [line for line in told.splitlines() if "so far" in line]
    assert len(lines) >= 3 and lines[0].startswith("standard under tiny: 50 %, 0:00:00 so far, about 0:00:0")
