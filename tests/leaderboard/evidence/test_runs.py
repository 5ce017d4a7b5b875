"""Unfinished runs: what of them is believed, and what is computed again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.core.errors import BenchError
from bench.leaderboard.evidence import seals
from bench.leaderboard.evidence.answers import FixedAnswers
from bench.leaderboard.evidence.manifest import Dependency, Manifest, Result, UnitStats, read_manifest
from bench.leaderboard.evidence.runs import RunFolder, open_run
from bench.leaderboard.rows import run_columns
from tests.leaderboard.evidence.manifests import whole_manifest

NEW = whole_manifest(answers=FixedAnswers([[1.0, 2.0]], 0.0))
UNIT = UnitStats(start=0, stop=1, seconds=0.1, device="cpu", counters={"claims": 3})


def reopen(board: Path, **environment: object) -> RunFolder:
    run = open_run(board, elsewhere(**environment), fresh=False)
    run.release()
    return run


def elsewhere(**environment: object) -> Manifest:
    return NEW.model_copy(update={"environment": NEW.environment.model_copy(update=environment)})


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """The folder of an unfinished run with two units done."""
    run = open_run(tmp_path, NEW, fresh=False)
    for index in range(2):
        stats = UNIT.model_copy(update={"seconds": 0.1 + index})
        run.save_part(index, pd.DataFrame({"example_id": [index]}), stats)
    run.stop("interrupted")
    run.release()
    return run.path


def change(folder: Path, tamper: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    tamper(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_stopped_run_goes_on_with_what_it_has(stopped: Path) -> None:
    assert json.loads((stopped / "manifest.json").read_text(), parse_constant=pytest.fail)["status"] == "interrupted"
    run = reopen(stopped.parents[1])
    assert run.path == stopped and run.in_order() == ["0", "1"]
    assert run.records()["example_id"].tolist() == [0, 1]
    assert run.manifest.status == "running"


@pytest.mark.parametrize(
    "tamper",
    [
        lambda units: units["0"].update(seconds="long"),
        lambda units: units["0"].update(counters={"claims": 4}),
        lambda units: units["0"].update(findings=[{"id": "x"}]),
        lambda units: units["0"].update(seal=None),
        lambda units: units["0"].update(seal="\ud800"),
        lambda units: units["0"].pop("seal"),
        lambda units: units.update({"0": units["1"]}),
        lambda units: units.update({"../0": units.pop("0")}),
        lambda units: units.update({"-1": units.pop("0")}),
    ],
)
def test_a_unit_that_was_changed_is_computed_again(stopped: Path, tamper: Callable[[Any], object]) -> None:
    change(stopped, lambda manifest: tamper(manifest["units"]))
    assert reopen(stopped.parents[1]).in_order() == ["1"]


@pytest.mark.parametrize(
    "records",
    [pd.DataFrame(), pd.DataFrame({"example_id": ["a"]}), pd.DataFrame({"example_id": [float("nan")]}), None],
)
def test_a_part_that_is_not_what_was_written_is_computed_again(stopped: Path, records: pd.DataFrame | None) -> None:
    part = stopped / "parts" / "00000.parquet"
    part.unlink()
    if records is not None:
        records.to_parquet(part)
    assert reopen(stopped.parents[1]).in_order() == ["1"]


def test_units_of_another_run_or_another_user_are_computed_again(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = stopped.parents[1]
    renamed = stopped.rename(stopped.with_name(f"{stopped.name[:-1]}x"))
    run = reopen(board)
    assert run.path == renamed and run.in_order() == []
    renamed.rename(stopped)
    monkeypatch.setattr(seals, "_key_file", lambda: tmp_path / "state" / "other.key")
    assert reopen(board).in_order() == []


@pytest.mark.parametrize("environment", [{"torch": "2.7"}, {"packages": {"captum": "0.8"}}])
def test_units_of_another_torch_or_other_packages_are_computed_again(
    stopped: Path, environment: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    run = reopen(stopped.parents[1], **environment)
    assert run.path == stopped and run.in_order() == [] and "of another torch" in caplog.text


def test_a_run_names_all_code_that_had_a_part_in_it_and_nothing_that_is_no_code(stopped: Path) -> None:
    board, first, second = stopped.parents[1], "a" * 40, "b" * 40
    change(stopped, lambda manifest: manifest["environment"].update(commit=f"\x1b[2J, {first}", bench="0.1.9"))
    for _ in range(2):
        run = reopen(board, bench="0.2.0+gb", commit=second)
        run.stop("interrupted")
        assert run.manifest.environment.commit == f"{first}, {second}"
        assert run.manifest.environment.bench == "0.1.9, 0.2.0+gb"
    assert run_columns(run.manifest)["commit"] == f"{first[:16]}, {second[:16]}"


def test_a_run_has_the_name_of_its_folder_whatever_its_manifest_says(stopped: Path) -> None:
    change(stopped, lambda manifest: manifest.update(run_id="../../evil", started_at="\x1b[2J" * 99))
    run = reopen(stopped.parents[1])
    assert run.run_id == run.manifest.run_id == stopped.name and run.in_order() == ["0", "1"]
    assert run.manifest.result == Result() and len(run.manifest.started_at) <= 40


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"precision": "bfloat16"}, {"dependencies": {"autoencoder": Dependency("1")}}]
)
def test_a_run_of_another_configuration_is_left_alone(stopped: Path, changes: dict[str, object]) -> None:
    other = NEW.model_copy(update={"config": NEW.config.model_copy(update=changes)})
    run = open_run(stopped.parents[1], other, fresh=False)
    run.release()
    assert run.path != stopped and run.in_order() == []


def test_a_run_of_a_net_that_answers_otherwise_is_left_alone(stopped: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = NEW.model_copy(update={"answers": FixedAnswers([[1.0, 2.1]], 0.0)})
    run = open_run(stopped.parents[1], other, fresh=False)
    run.release()
    assert run.path != stopped and run.in_order() == []
    assert "is of a net that answers otherwise; a new run starts" in caplog.text


@pytest.mark.parametrize("name", ["", "parts", "manifest.json", ".lock"])
def test_what_is_a_link_is_not_resumed(stopped: Path, tmp_path: Path, name: str) -> None:
    linked = stopped / name
    (stopped / ".lock").touch()
    target = linked.rename(tmp_path / "elsewhere")
    linked.symlink_to(target)
    assert reopen(stopped.parents[1]).path != stopped


def test_a_folder_that_could_be_no_run_id_is_not_resumed(stopped: Path) -> None:
    stopped.rename(stopped.with_name(f"\x1b[2J{stopped.name}"))
    assert reopen(stopped.parents[1]).in_order() == []


def test_the_lock_is_let_go_before_its_file_is_removed(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = open_run(stopped.parents[1], NEW, fresh=False)
    run.finish()
    held = []
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda path, **how: (held.append(run.lock.is_locked), unlink(path, **how)))
    run.release()
    assert held == [False] and not (stopped / ".lock").exists()


def test_a_finished_manifest_has_no_seals(stopped: Path) -> None:
    run = open_run(stopped.parents[1], NEW, fresh=False)
    run.finish()
    run.release()
    units = read_manifest(stopped).units
    assert len(units) == 2 and all(unit.seal == unit.sha256 == "" for unit in units.values())


def test_what_killed_processes_left_goes_after_a_day_and_nothing_else(stopped: Path) -> None:
    runs = stopped.parent
    for name in ("empty", "young", "somebodys", ".copied.merging"):
        (runs / name).mkdir()
    (runs / "empty" / ".lock").touch()
    (runs / "somebodys" / "notes.txt").touch()
    (runs / ".copied.merging" / "manifest.json").touch()
    (stopped / ".manifest.json.0123abcd.bench-tmp").touch()
    for path in (*runs.iterdir(), *stopped.iterdir()):
        if path.name != "young":
            os.utime(path, (0, 0))
    reopen(stopped.parents[1])
    assert {path.name for path in runs.iterdir()} == {stopped.name, "young", "somebodys"}
    assert not list(stopped.glob("*.bench-tmp"))


def test_the_key_is_the_users_alone_and_outlives_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state" / "resume.key"
    monkeypatch.setattr(seals, "_key_file", lambda: path)
    first = seals.seal("a", 1)
    seals._key.cache_clear()  # as another process
    assert seals.is_sealed(first, "a", 1) and not seals.is_sealed(first, "a", 2)
    assert os.name == "nt" or path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)  # others may have read it
    seals._key.cache_clear()
    assert os.name == "nt" or not seals.is_sealed(first, "a", 1)


def test_where_no_key_can_be_kept_a_run_still_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(seals, "_key_file", lambda: tmp_path / "file" / "resume.key")
    assert seals.is_sealed(seals.seal(1), 1)
    assert "cannot be resumed, since no key can be kept" in caplog.text


def test_a_folder_that_cannot_be_made_gives_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(BenchError, match="stands where a folder is needed"):
        open_run(tmp_path, NEW, fresh=False)
