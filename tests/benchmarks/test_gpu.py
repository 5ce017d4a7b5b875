from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.catalog.models import load_model, resolve_models
from bench.core.errors import BenchError
from benchmarks.gpu_parts import travel
from benchmarks.gpu_parts.ledger import Ledger
from benchmarks.gpu_parts.travel import pack_model, unpack_model

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def test_a_model_comes_back_as_it_was_packed(tmp_path: Path) -> None:
    folder = ROOT / "models" / "fashion_mnist" / "standard"
    packed = tmp_path / "standard.model"
    packed.write_bytes(pack_model(folder))
    unpack_model(packed, tmp_path / "standard")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "standard").iterdir()
    }


def test_numbers_rounded_to_bfloat16_take_less_than_half_of_their_room(tmp_path: Path) -> None:
    values = torch.randn(100_000).bfloat16().float()
    (tmp_path / "weights").write_bytes(values.numpy().tobytes())
    assert len(pack_model(tmp_path)) < 0.4 * 4 * len(values)


def test_what_is_measured_is_measured_once_and_what_failed_again(tmp_path: Path) -> None:
    def fail() -> dict[str, int]:
        raise ValueError("no")

    first = Ledger(tmp_path, 100.0, CPU)
    with first.during("part", 1.0):
        assert first.measure("a", lambda: {"value": 1}) == {"value": 1}
        assert first.measure("b", fail) is None
        assert first.measure("c", lambda: {"value": 3}, needs=1000.0) is None
    assert first.left == ["part: c"]
    second = Ledger(tmp_path / "next", 100.0, CPU)
    second.take_over(tmp_path)
    with second.during("part", 1.0):
        assert second.measure("a", fail) == {"value": 1}
        assert second.measure("b", lambda: {"value": 2}) == {"value": 2}
    written = json.loads((tmp_path / "next" / "gpu.json").read_text())
    assert written["rows"] == {"part": {"a": {"value": 1}, "b": {"value": 2}}}
    assert "| b | 2 |" in (tmp_path / "next" / "gpu.md").read_text()


def test_more_than_may_travel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(travel, "_TAKEN", ("pyproject.toml",))
    assert 0 < travel.pack_tree(tmp_path / "fits", []) < 100_000
    with pytest.raises(BenchError, match="is not empty"):
        travel.pack_tree(tmp_path / "fits", [])
    monkeypatch.setattr(travel, "MOST_BYTES", 100)
    with pytest.raises(BenchError, match="may travel; leave something out"):
        travel.pack_tree(tmp_path / "larger", [])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_whole_script_runs_in_a_miniature_and_a_second_run_measures_nothing_anew(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/gpu.py", "run", str(tmp_path / "out"), "--miniature"]
    found = []
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found.append(json.loads((tmp_path / "out" / "gpu.json").read_text()))
    assert found[0]["left"] == [] and found[1]["rows"] == found[0]["rows"]
    rows = found[0]["rows"]
    assert list(rows) == ["agreement", "training", "rivals", "scaling"]
    assert not [f"{key}: {row}" for part in rows.values() for key, row in part.items() if "failed" in row]
    assert all(row["differ"] == 0 for key, row in rows["agreement"].items() if not key.endswith("maps"))
    unpack = [sys.executable, "benchmarks/gpu.py", "unpack", str(tmp_path / "out"), str(tmp_path / "home")]
    subprocess.run(unpack, cwd=ROOT, check=True)
    for recipe in ("standard", "at_linf", "ir_smoothgrad", "lga"):
        load_model(resolve_models([str(tmp_path / "home" / "models" / "cifar10" / f"resnet18_{recipe}")])[0])
    assert (tmp_path / "home" / "board" / "leaderboard.csv").is_file()
