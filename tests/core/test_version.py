from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import bench
from bench.core import version
from bench.core.version import code_version, commit


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


def test_without_a_repository_or_without_git_the_version_stands_alone(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (commit(), code_version()) == ("", bench.__version__)
    (checkout / ".git").mkdir()
    monkeypatch.setattr(version.subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError()))
    commit.cache_clear()
    assert commit() == ""


def test_the_version_has_one_source() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", bench.__version__)
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert bench.__version__ not in project and 'dynamic = ["version"]' in project
