from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import bench
from bench.core import version
from bench.core.version import code_version, commit

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    commit.cache_clear()
    yield
    commit.cache_clear()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a package of this name in it."""
    (tmp_path / "bench").mkdir()
    for name in ("bench/__init__.py", "pyproject.toml", "README.md"):
        (tmp_path / name).write_text("")
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "bench" / "__init__.py"))
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    settings = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    done = subprocess.run(["git", *settings, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_checkout_is_named_by_its_commit_and_whether_code_differs_from_it(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "first")
    head = git(checkout, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(checkout / "nowhere"))  # as in a hook of another repository
    (checkout / "README.md").write_text("no code")
    assert (commit(), code_version()) == (head, f"{bench.__version__}+g{head[:12]}")
    commit.cache_clear()
    (checkout / "bench" / "__init__.py").write_text("x = 1")
    assert (commit(), code_version()) == (f"{head}-dirty", f"{bench.__version__}+g{head[:12]}.dirty")


@pytest.mark.parametrize("failure", [subprocess.TimeoutExpired("git", 10), None])
def test_a_tree_whose_state_git_does_not_tell_counts_as_changed(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception | None
) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if "status" not in command:
            return subprocess.CompletedProcess(command, 0, stdout="a" * 40 + "\n")
        if failure is not None:
            raise failure
        return subprocess.CompletedProcess(command, 128, stdout="")

    (checkout / ".git").mkdir()
    monkeypatch.setattr(version.subprocess, "run", run)
    assert commit() == "a" * 40 + "-dirty"


def test_without_a_repository_or_without_git_the_version_stands_alone(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (commit(), code_version()) == ("", bench.__version__)
    (checkout / ".git").mkdir()
    monkeypatch.setattr(version.subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError()))
    commit.cache_clear()
    assert commit() == ""


def test_what_was_built_from_a_checkout_keeps_its_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a wheel and an sdist get it by the build's hook, whose package stands in for hatchling's here."""
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "first")
    head = git(checkout, "rev-parse", "HEAD")
    interface = ModuleType("interface")
    monkeypatch.setattr(interface, "BuildHookInterface", type("Hook", (), {"root": str(checkout)}), raising=False)
    monkeypatch.setitem(sys.modules, "hatchling.builders.hooks.plugin.interface", interface)
    hook = runpy.run_path(str(ROOT / "hatch_build.py"))["CommitHook"]()
    monkeypatch.setattr(sys, "path", list(sys.path))
    build_data: dict[str, dict[str, str]] = {"force_include": {}}
    hook.initialize("editable", build_data)
    assert build_data["force_include"] == {}, "an editable install runs from the checkout"
    hook.initialize("standard", build_data)
    ((made, place),) = build_data["force_include"].items()
    shutil.rmtree(checkout / ".git")
    commit.cache_clear()
    assert commit() == ""
    shutil.copy(made, checkout / place)
    commit.cache_clear()
    assert (commit(), code_version()) == (head, f"{bench.__version__}+g{head[:12]}")
    again: dict[str, dict[str, str]] = {"force_include": {}}
    hook.initialize("standard", again)
    assert again["force_include"] == {}, "an sdist's own file goes into the wheel that is made of it"


def test_the_version_has_one_source() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", bench.__version__)
    project = (ROOT / "pyproject.toml").read_text()
    assert bench.__version__ not in project and 'dynamic = ["version"]' in project
