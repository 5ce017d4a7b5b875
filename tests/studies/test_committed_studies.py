"""The committed studies: tables and verdicts agree, and what they rest on can be had again."""

from __future__ import annotations

import csv
import functools
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.catalog.locations import shipped
from bench.leaderboard.table import read_leaderboard
from bench.studies.claims import VERDICTS
from bench.studies.names import expand
from bench.studies.study import Study, read_study
from tests.studies.test_shipped_studies import STUDIES, groups

ROOT = Path(__file__).parents[2]
FOLDERS = sorted(path.parent for path in (ROOT / "leaderboard" / "studies").glob("*/verdict.md"))
each = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def claims(folder: Path) -> list[dict[str, str]]:
    with (folder / "claims.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def numbers(row: dict[str, str]) -> str:
    """A claim's effect as a verdict writes it; empty where it has none."""
    return f"effect {row['effect']}, 95 % interval [{row['ci_low']}, {row['ci_high']}]; " if row["effect"] else ""


def section(row: dict[str, str]) -> Iterator[str]:
    """What a verdict lists under a claim's name."""
    p = f"adjusted p {row['p_adjusted']}; " if row["p_adjusted"] else ""
    if row["effect"]:
        yield f"- {numbers(row)}{p}{row['n']}"
    yield f"- {row['detail']}"
    if row["gates"]:
        yield f"- rests on {row['gates']}"
    if row["published"] == "ours":
        yield "- ours, of no paper"
    else:
        yield f"- published: {row['published'] or 'no number of the paper could be recovered'}"


def headlines(folder: Path) -> list[str]:
    """The sentences that a verdict begins with."""
    return re.findall(r"^\d+\. .*$", (folder / "verdict.md").read_text().partition("\n## ")[0], re.MULTILINE)


@each
def test_a_verdict_says_of_every_claim_what_the_table_beside_it_says(folder: Path) -> None:
    text = (folder / "verdict.md").read_text().partition("\n## What differs from the paper")[0]
    _, *parts = re.split(r"^## (\w+): ", text, flags=re.MULTILINE)
    said = {name: part.splitlines() for name, part in zip(parts[::2], parts[1::2], strict=True)}
    table = {row["claim"]: row for row in claims(folder)}
    assert said.keys() == table.keys() and len(parts) == 2 * len(table)
    for name, row in table.items():
        verdict, *lines = said[name]
        assert verdict == row["verdict"], name
        assert [line for line in lines if line.startswith("- ")] == list(section(row)), name


@each
def test_a_verdict_begins_with_the_tables_headlines_and_counts(folder: Path) -> None:
    rows = [row for row in claims(folder) if row["kind"] != "check"]
    first = [row for row in rows if row["headline"]]
    assert [row for row in claims(folder) if row["headline"]] == first and len(first) == len(headlines(folder))
    for row, line in zip(first, headlines(folder), strict=True):
        failed = f"; it rests on {row['gates']}" if row["verdict"].endswith("(control failed)") else ""
        assert line.endswith(f" *{row['verdict'].capitalize()}*: {numbers(row)}{row['detail']}{failed}."), row["claim"]
    counts = Counter(row["verdict"] for row in rows)
    counted = ", ".join(f"{counts[word]} {word}" for word in VERDICTS if counts[word])
    assert f" {counted} of {len(rows)} claims. " in (folder / "verdict.md").read_text()


@each
def test_a_verdict_begins_with_up_to_five_sentences_that_each_have_a_figure(folder: Path) -> None:
    number = r"-?\d+\.\d+"
    whole = re.compile(rf"\*: effect {number}, 95 % interval \[{number}, {number}\]; ")
    lines = headlines(folder)
    assert 2 <= len(lines) <= 5 and [line for line in lines if not whole.search(line)] == []


@each
def test_every_model_of_a_verdict_is_shipped_or_can_be_trained(folder: Path) -> None:
    plan = json.loads((folder / "plan.json").read_text())
    study = studies()[plan["study"]]
    missing = [run for run in plan["runs"] if run not in models_of_runs()]
    assert missing == [], "leaderboard.csv does not have them"
    prefix, ran = study.scale(plan["scale"]).prefix, {models_of_runs()[run] for run in plan["runs"]}
    parts = [one.model_dump() for one in study.claims_at(plan["scale"])]
    named = expand(groups(parts), {model.removeprefix(prefix) for model in ran})
    used = ran | {prefix + model for model in named}
    assert sorted(used - here(study.dataset) - trainable(study.dataset)) == []


@functools.cache
def models_of_runs() -> dict[str, str]:
    rows = read_leaderboard(ROOT / "leaderboard")
    return dict(zip(rows["run_id"], rows["model"], strict=True))


@functools.cache
def studies() -> dict[str, Study]:
    read = [read_study(shipped("suites") / "studies" / f"{name}.toml") for name in STUDIES]
    return {study.name: study for study in read}


def here(dataset: str) -> set[str]:
    return {path.parent.name for path in (ROOT / "models" / dataset).glob("*/card.toml")}


def trainable(dataset: str) -> set[str]:
    """What any study of a data set trains at any scale, with every seed."""
    own = [study for study in studies().values() if study.dataset == dataset]
    return {model.id for study in own for name in study.scales for model in study.scale(name).train}
