"""The rooms: imports go one way, and only `bench` is importable."""

from __future__ import annotations

import ast
import csv
import functools
import graphlib
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from bench.cli.main import app
from bench.core.version import COMMIT_FILE, commit
from bench.data import DATASETS

ROOT = Path(__file__).parent.parent
CODE = sorted((ROOT / "bench").rglob("*.py"))
FILES = [*CODE, *(path for folder in ("tests", "benchmarks", "docs") for path in sorted((ROOT / folder).rglob("*.py")))]


@functools.cache
def _nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(_tree(path)))


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


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
    for path in CODE:
        calls = [node.func for node in _nodes(path) if isinstance(node, ast.Call)]
        assert not any(isinstance(function, ast.Name) and function.id == "print" for function in calls), path


def test_a_room_has_at_most_fifteen_files_of_its_own() -> None:
    counts = {path.parent: len(list(path.parent.glob("*.py"))) for path in CODE}
    assert {folder.name for folder, count in counts.items() if count > 15} == set()


def test_a_file_has_at_most_300_lines() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert not {path for path, count in lines.items() if count > 300}


def test_a_function_has_at_most_50_lines_beside_its_docstring() -> None:
    long = {
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in FILES
        for node in _nodes(path)
        if isinstance(node, ast.FunctionDef) and _length(node) > 50
    }
    assert not long


def _length(function: ast.FunctionDef) -> int:
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and ast.get_docstring(function) is not None
    return (function.end_lineno or 0) - function.lineno + 1 - (first.end_lineno - first.lineno + 1 if documented else 0)


def test_no_call_of_ours_has_more_than_four_arguments_by_position() -> None:
    defined = {node.name for path in CODE for node in _nodes(path) if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    defined -= {
        node.name
        for path in FILES
        for node in _nodes(path)
        if isinstance(node, ast.FunctionDef) and node.args.vararg is not None
    }
    defined -= {"Progress", "apply"}  # rich's and torch's
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in FILES
        for node in _nodes(path)
        if isinstance(node, ast.Call) and len(node.args) > 4
        if (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")) in defined
        if not any(isinstance(argument, ast.Starred) for argument in node.args)
    ]
    assert not found


def test_modules_import_each_other_in_one_direction() -> None:
    """Imports inside functions count too; those for type checkers alone do not."""
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in CODE}
    graph = {name: set(_imported(_tree(path), modules)) - {name} for name, path in modules.items()}
    del graph["bench"]  # loads bench.api when a name of it is asked for
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def _imported(node: ast.AST, modules: dict[str, Path]) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.ImportFrom) and child.module in modules:
            inner = {name.name for name in child.names if f"{child.module}.{name.name}" in modules}
            yield from (f"{child.module}.{name}" for name in inner)
            if len(inner) < len(child.names):
                yield str(child.module)
        yield from _imported(child, modules)


def test_flags_are_named_only_by_the_command_line() -> None:
    """Below it an error names the parameter that would help, since many call from Python."""
    flags = "|".join(sorted(_flags(typer.main.get_command(app))))
    found = {
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in CODE
        if not path.is_relative_to(ROOT / "bench" / "cli") and path.name != "errors.py"
        for line in path.read_text().splitlines()
        if re.search(rf"(?<![\w-])({flags})(?![\w-])", line)
    }
    assert not found


def _flags(command: object) -> set[str]:
    own = {flag for parameter in getattr(command, "params", ()) for flag in parameter.opts if flag.startswith("--")}
    return own.union({"--help"}, *(_flags(one) for one in getattr(command, "commands", {}).values()))


def test_the_committed_leaderboard_has_at_most_20_megabytes() -> None:
    """It had 59.6 when every explanation was stored whole, 33.1 when digests were."""
    assert sum(path.stat().st_size for path in (ROOT / "leaderboard").rglob("*") if path.is_file()) <= 20_000_000


def test_the_committed_leaderboard_is_of_data_sets_that_come_with_the_package() -> None:
    """A run of an example's own data set was once committed with the rest."""
    with (ROOT / "leaderboard" / "leaderboard.csv").open(newline="") as stream:
        assert {row["dataset"] for row in csv.DictReader(stream)} <= set(DATASETS)


def test_no_committed_evidence_names_a_path_of_the_machine_that_it_comes_from() -> None:
    manifests = sorted((ROOT / "leaderboard" / "runs").glob("*/manifest.json"))
    assert (
        manifests and [path.parent.name for path in manifests if re.search(r':\s*"(/|[A-Z]:)', path.read_text())] == []
    )


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
    assert (tmp_path / "site" / "bench" / COMMIT_FILE).read_text() == commit()
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
