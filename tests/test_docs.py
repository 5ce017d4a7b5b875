"""What the README and the docs tell people to type is what the command line takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import Bench

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "leaderboard" / "README.md"]
_COMMAND = re.compile(r"(?:^ {4}(?:.*&& \S*/)?(?:[A-Z_]+=\S+ )?|`)bench ([a-z][^`\n]*)", re.MULTILINE)


def commands() -> list[str]:
    found = [line.strip() for page in PAGES for line in _COMMAND.findall(page.read_text())]
    return sorted({line for line in found if "  " not in line.partition("#")[0].strip()})


def test_there_are_commands_to_check() -> None:
    assert "run --model ir_smoothgrad --suite cross_norm" in commands() and len(commands()) > 20


@pytest.mark.parametrize("line", commands())
def test_a_documented_command_exists_with_its_options(bench: Bench, line: str) -> None:
    words = [word.replace("|", " ").split()[0] for word in shlex.split(line, comments=True)]
    code, _, err = bench(*words, "--help")
    assert code == 0, err


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target
