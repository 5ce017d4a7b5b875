"""What the README and the docs tell people to type is what the command line takes."""

from __future__ import annotations

import doctest
import fnmatch
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
from tests.quotations import misquoted, quoting

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


def test_the_leaderboards_page_is_one_page() -> None:
    assert len((ROOT / "leaderboard" / "README.md").read_text().split()) <= 1500


def test_a_page_that_links_a_verdict_quotes_its_figures() -> None:
    cards = (ROOT / "models").rglob("autoencoder.toml")
    shares = [found for card in cards for found in re.findall(r"^explained_variance = (\S+)", card.read_text(), re.M)]
    wrong = {}
    for page in PAGES:
        for study, text in quoting(page.read_text()):
            verdict = ROOT / "leaderboard" / "studies" / study / "verdict.md"
            wrong[page.relative_to(ROOT), study] = misquoted(text, verdict.read_text(), shares)
    assert any(page == Path("README.md") for page, _ in wrong)
    assert {place: figures for place, figures in wrong.items() if figures} == {}


VERDICT = """# a study: 2020
1. One. *Supported*: effect 1.4993, 95 % interval [1.3430, 1.6560]; adjusted p 0.048; of 6.9622.
2. Two. *Undecided*: effect 0.0025, 95 % interval [-0.0120, 0.0660]; adjusted p 0.71; explains 57.5 % of it.
6 supported, 12 undecided of 18 claims. """


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("less by 1.50 [1.34, 1.66] of 6.96, p .048; 57.5 % (the other 79.5 %), 0.2 points", []),
        ("1.4993, 95 % interval [1.3430, 1.6560]: 6 supported, 12 undecided of 18 claims, three seeds at 8/255", []),
        ("1.50 [1.34, 1.67]", ["1.50 [1.34, 1.67]"]),
        ("0.0025 [1.34, 1.66]", ["0.0025 [1.34, 1.66]"]),  # of two claims
        ("-1.50 [1.34, 1.66]", ["-1.50 [1.34, 1.66]"]),
        ("of 6.97", ["6.97"]),
        ("p = .71 and p of .049, p .0025", ["p .049", "p .0025"]),
        ("58.5 % or 59 %, 0.3 points", ["58.5 %", "59 %"]),
        ("16 supported, 2 undecided of 17 claims", ["16 supported", "2 undecided", "17 claims"]),
    ],
)
def test_a_figure_that_a_verdict_does_not_have_is_found(text: str, wrong: list[str]) -> None:
    assert misquoted(text, VERDICT, ["0.7946"]) == wrong


def test_a_figure_is_of_the_verdict_that_is_linked_beside_it() -> None:
    page = (
        "0.1 of nothing.\n\nFirst 0.2, [a](studies/a-quick/verdict.md) 0.3, then ([b](../studies/b/verdict.md)): 0.4\n"
        "`--eps 0.5` 0.6.\n\n| study | found |\n|---|---|\n| c | 0.7 ([c](studies/c/verdict.md)) |\n| d | 0.8 |\n"
        "- [e](studies/e/verdict.md)\n- 0.9"
    )
    found = {study: re.findall(r"0\.\d", text) for study, text in quoting(page)}
    assert found == {"a-quick": ["0.2", "0.3"], "b": ["0.4", "0.6"], "c": ["0.7"], "e": []}


def test_the_leaderboards_ranks_are_what_its_evidence_says() -> None:
    made = script("make_ranks")
    assert made.SHIPPED.read_text() == made.content(), (
        "leaderboard/ranks.json is out of date: python docs/make_ranks.py"
    )


def test_the_leaderboard_has_what_the_gate_of_ci_compares_with() -> None:
    gate = re.search(
        r"^bench check (.*) --suite (\w+) --baseline leaderboard$", (ROOT / ".ci" / "run").read_text(), re.M
    )
    assert gate
    shipped = {path.parent.name for path in (ROOT / "models" / "fashion_mnist").glob("*/card.toml")}
    patterns = re.findall(r"--model '?([^' ]+)", gate[1])
    gated = {name for name in shipped if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)}
    rows = committed_rows()
    judged = set(rows.loc[(rows["suite"] == gate[2]) & (rows["dataset"] == "fashion_mnist"), "model"])
    assert len(gated) > 10 and gated <= judged, gated - judged


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
