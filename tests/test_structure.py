"""The rooms: imports go one way, and only `bench` is importable."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_imports_go_one_way_between_the_rooms() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 kept, 0 broken" in result.stdout


def test_every_room_is_in_the_contract() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    named = {name.strip() for layer in contract["layers"] for name in re.split(r"[|:]", layer)}
    rooms = {f"bench.{path.parent.name}" for path in (ROOT / "bench").glob("*/__init__.py")} | {"bench.api"}
    assert named == rooms


def test_library_code_never_prints() -> None:
    for path in (ROOT / "bench").rglob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not any(isinstance(function, ast.Name) and function.id == "print" for function in calls), path


@pytest.mark.slow
def test_the_wheel_carries_models_and_suites_and_works_from_any_folder(tmp_path: Path) -> None:
    """Builds the wheel and runs it from its own folder: `pytest -m slow tests/test_structure.py`."""
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert {name.split("/")[0] for name in names} == {"bench", wheel.name.split("-py3")[0] + ".dist-info"}
    assert "bench/_shipped/models/fashion_mnist/standard/weights.safetensors" in names
    assert {"bench/_shipped/suites/cross_norm.toml", "bench/_shipped/suites/datasets/imagenet.toml"} <= set(names)
    assert "bench/data/class_lists/imagenet100.txt" in names
    assert {f"bench/reporting/page/templates/{name}" for name in ("page.html.j2", "page.css", "page.js")} <= set(names)
    assert "bench/data/embedded/fashion_mnist/t10k-images-idx3-ubyte.gz" in names
    assert not any(".training/" in name or "_seed" in name or "/mnist/" in name for name in names)
    assert wheel.stat().st_size <= 30_000_000
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); import bench; assert 'site' in bench.__file__; "
        "from bench.cli.main import run_command; "
        "sys.exit(run_command(['run', '--model', 'standard', '--suite', 'cross_norm_quick', '--examples', '10']))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "leaderboard" / "leaderboard.csv").is_file()
