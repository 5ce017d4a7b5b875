"""What the README and the docs tell people to type is what the command line takes."""

from __future__ import annotations

import doctest
import functools
import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import typer

from bench.cli.main import app
from bench.leaderboard.table import of_newest_versions, read_leaderboard
from tests.conftest import Bench

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "leaderboard" / "README.md"]
_COMMAND = re.compile(r"(?:^ {4}(?:.*&& \S*/)?(?:[A-Z_]+=\S+ )?|`)bench ([a-z][^`\n]*)", re.MULTILINE)


@functools.cache
def committed_rows() -> pd.DataFrame:
    return read_leaderboard(ROOT / "leaderboard")


def commands() -> list[str]:
    written = [page for page in PAGES if page.parent.name != "reference"]
    found = [line.strip() for page in written for line in _COMMAND.findall(page.read_text())]
    return sorted({line for line in found if "  " not in line.partition("#")[0].strip()})


def test_there_are_commands_to_check() -> None:
    assert "run --model ir_smoothgrad --suite cross_norm" in commands() and len(commands()) > 20


def one_of_each() -> list[str]:
    """One line for each command with the same options; what they are given is not looked at."""
    kinds = {}
    for line in commands():
        words = line.split()
        kinds.setdefault((words[0], *(word for word in words if word.startswith("-"))), line)
    return list(kinds.values())


@pytest.mark.parametrize("line", one_of_each())
def test_a_documented_command_exists_with_its_options(bench: Bench, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.rich_utils.rich_format_help", lambda **_: None)  # what it looks like, the next test sees
    words = [word.replace("|", " ").split()[0] for word in shlex.split(line, comments=True)]
    code, _, err = bench(*words, "--help")
    assert code == 0, err


@pytest.mark.parametrize("command", sorted({line.split()[0] for line in commands()}))
def test_a_documented_command_has_its_help(bench: Bench, command: str) -> None:
    code, out, err = bench(command, "--help")
    assert code == 0 and f"Usage: bench {command}" in out, err


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def make_reference() -> ModuleType:
    return script("make_reference")


def test_the_reference_is_what_the_code_says(make_reference: ModuleType) -> None:
    committed = {path.name: path.read_text() for path in (ROOT / "docs" / "reference").glob("*.md")}
    made = make_reference.pages()
    assert committed.keys() == made.keys()
    for name, content in made.items():
        assert committed[name] == content, f"docs/reference/{name} is out of date: python docs/make_reference.py"


def test_the_leaderboards_page_concludes_nothing_that_no_verdict_says() -> None:
    find = script("make_findings")
    assert find.PAGE.read_text() == find.page(), "leaderboard/README.md is out of date: python docs/make_findings.py"
    said = "".join(path.read_text() for path in (ROOT / "leaderboard").glob("studies/*/verdict.md"))
    before, _, rest = find.PAGE.read_text().partition("<!-- findings")
    found, _, after = rest.partition("<!-- end of findings -->")
    assert [line for line in found.splitlines() if re.match(r"\d", line) and line.rstrip(".") not in said] == []
    own = re.sub(r"^ {4}.*$|\(.*?\)", "", before + after, flags=re.MULTILINE)
    assert re.findall(r"\d+\.\d+|\d+ ?%|points|\brobust accuracy\b", own) == [], "figures stand in a verdict"
    assert len(find.PAGE.read_text().splitlines()) < 100


def test_the_leaderboards_ranks_are_what_its_evidence_says() -> None:
    made = script("make_ranks")
    assert made.SHIPPED.read_text() == made.content(), (
        "leaderboard/ranks.json is out of date: python docs/make_ranks.py"
    )


def test_every_page_of_the_docs_is_found_from_their_first() -> None:
    first = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert page.name == "README.md" or f"({page.relative_to(ROOT / 'docs')})" in first, page


def test_the_table_of_suites_names_those_that_there_are() -> None:
    table = (ROOT / "README.md").read_text().partition("## Suites")[2].partition("##")[0]
    named, whole = set(), ""
    for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", cell):
            whole = whole if name.startswith("_") else name
            named.add(whole + name if name.startswith("_") else name)
    shipped = {path.stem for path in (ROOT / "suites").glob("*.toml")}
    assert named == {name for name in shipped if not name.endswith(("_quick", "_paper", "_reduced"))}


def test_the_readme_lists_every_command() -> None:
    group: Any = typer.main.get_command(app)
    listed = (ROOT / "README.md").read_text().partition("## Commands")[2].partition("##")[0]
    assert set(re.findall(r"bench (\w+) {2,}", listed)) == set(group.commands)


def test_the_readme_counts_where_the_sweep_is_at_or_below_autoattack() -> None:
    rows = committed_rows()
    rows = rows[(rows["metric"] == "robust_accuracy") & (rows["dataset"] == "fashion_mnist")]
    place = ["model", "norm", "eps", "model_sha256"]
    sweep, whole = (
        of_newest_versions(rows[(rows["suite"] == suite) & (rows["attack"] == attack)]).groupby(place)["value"].last()
        for suite, attack in (("cross_norm", "sweep"), ("autoattack", "autoattack"))
    )
    above = (sweep - whole).dropna()
    count = f"{(above < 1e-9).sum()} of {len(above)} comparisons ({above.index.unique('model').size} models"
    assert (
        f"{count}, three norms) and at most\n{100 * above.max():.1f} points above" in (ROOT / "README.md").read_text()
    )


def test_every_metric_has_its_formula() -> None:
    explained = (ROOT / "docs" / "metrics.md").read_text()
    measured = {metric.partition("/")[0] for metric in committed_rows()["metric"]}
    assert [name for name in measured if f"`{name}" not in explained] == []


def test_examples_on_the_pages_are_true(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    outcomes = [
        doctest.testfile(str(page), module_relative=False)
        for page in PAGES
        if ">>>" in page.read_text() and page.parent.name != "reference"
    ]
    assert sum(outcome.attempted for outcome in outcomes) > 10 and not any(outcome.failed for outcome in outcomes)
