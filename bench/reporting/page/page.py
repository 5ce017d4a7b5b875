"""The page as a whole: what goes on it, in which order, and the template that writes it down."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import bench
from bench.leaderboard.evidence.finished_runs import MASKING, Run, read_runs
from bench.reporting.page.boards import BoardTable, Ranker, is_smaller_copy, make_tables
from bench.reporting.page.content import Names, PlotGroup, anchor
from bench.reporting.page.curves import robustness_curves
from bench.reporting.page.models import ModelSection, model_anchor, model_sections
from bench.reporting.page.packing import packed
from bench.reporting.page.retraining import retrained_maps
from bench.reporting.page.saliency import SaliencySet
from bench.reporting.page.studies import Study, read_studies
from bench.reporting.page.svg import swatch
from bench.reporting.page.tradeoffs import robustness_tradeoffs, stability_tradeoffs

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class PageSource:
    """What a page is made from.

    Attributes:
        rows: of the leaderboard, those to show.
        leaderboard: the folder with runs/ and studies/.
        cards: full name of a model -> its card; where one is missing, that of the run's manifest is taken.
        suites: name -> digest of the suites that ship with this version.
        models: full name -> digest of the registered weights.
        ranker: adds ranks to a board; without it tables have none.
        plain: whether everything stands readable in the file, several times as large; else all below the first table
            is packed.
    """

    rows: pd.DataFrame
    leaderboard: Path
    title: str
    cards: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    suites: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    saliency: Sequence[SaliencySet] = ()
    ranker: Ranker | None = None
    plain: bool = False


@dataclass(frozen=True, slots=True)
class FindingRow:
    """Something that a run noticed; `verdict` is that of the gradient-masking report, empty for anything else."""

    model: str
    label: str
    anchor: str
    suite: str
    severity: str
    id: str
    verdict: str
    evidence: str
    advice: str


@dataclass(frozen=True, slots=True)
class _Content:
    """All parts; a part that has nothing to show is empty, and the template leaves its section out."""

    tables: list[BoardTable]
    curves: list[PlotGroup]
    tradeoffs: list[PlotGroup]
    retraining: list[PlotGroup]
    findings: list[FindingRow]
    studies: list[Study]
    models: list[ModelSection]


def build_page(source: PageSource) -> str:
    """The page as HTML text, the same for the same leaderboard whenever it is built.

    It holds everything it shows: no other file, no address outside is loaded, and its own content security policy
    forbids both. Whatever comes from a card, a row, a manifest or a verdict is escaped.

    Raises:
        BenchError: a study's verdict cannot be read.
    """
    runs = read_runs(source.rows, source.leaderboard)
    datasets = {str(run.facts["dataset"]) for run in runs}
    names = Names({name: slot for slot, name in enumerate(sorted({run.model for run in runs}))}, len(datasets) > 1)
    content = _gather(source, runs, names)
    shown = {run.run_id for table in content.tables for run in table.runs}
    environment = Environment(
        loader=PackageLoader("bench.reporting.page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["packing"] = _identity if source.plain else _packed
    style, script = _asset("page.css"), _asset("page.js")
    html = environment.get_template("page.html.j2").render(
        title=source.title,
        content=content,
        runs=runs,
        runs_shown=len(shown),
        images=max(run.examples for run in runs),
        datasets=sorted(datasets),
        suites=sorted({table.title for table in content.tables}),
        methods=sorted({str(run.facts["method"]) for run in runs}),
        newest=max(str(run.facts["finished_at"]) for run in runs),
        versions=sorted({str(run.facts["bench_version"]) for run in runs}),
        saliency=[one for one in source.saliency if one.panels],
        names=names,
        swatches={name: swatch(slot, joined=False) for name, slot in names.slots.items()},
        model_anchor=model_anchor,
        anchor=anchor,
        version=bench.__version__,
        packed=not source.plain,
        style=Markup(style),  # noqa: S704  (files of this package)
        script=Markup(script),  # noqa: S704
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return _tidy(html) + "\n"


def _gather(source: PageSource, runs: list[Run], names: Names) -> _Content:
    tables = make_tables(source.rows, runs, names, source.ranker)
    latest = [run for table in tables for run in table.runs]
    drawn = [table for table in tables if not is_smaller_copy(table, tables)]
    cards = {name: source.cards.get(name) or _card(runs, name) for name in names.slots}
    tradeoffs = [group for table in drawn if (group := robustness_tradeoffs(table, names)) is not None]
    return _Content(
        tables=tables,
        curves=[group for table in drawn if (group := robustness_curves(table)) is not None],
        tradeoffs=[*tradeoffs, *stability_tradeoffs(drawn, cards, names)],
        retraining=retrained_maps(drawn),
        findings=_findings(latest, names),
        studies=read_studies(source.leaderboard),
        models=model_sections({table.id: table.runs for table in tables}, cards, names, source.suites, source.models),
    )


def _card(runs: Sequence[Run], name: str) -> Mapping[str, Any]:
    """The card of the model's newest run that has its evidence."""
    own = [run for run in runs if run.model == name and run.card]
    return max(own, key=lambda run: str(run.facts["finished_at"])).card if own else {}


def _findings(runs: Sequence[Run], names: Names) -> list[FindingRow]:
    rows = [
        FindingRow(
            run.model, names.label(run.model), model_anchor(run.model), str(run.facts["suite"]),
            found["severity"], found["id"], run.masking if found["id"] == MASKING else "",
            found["evidence"], found["advice"],
        )
        for run in runs
        for found in run.findings
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (_gravity(row), row.model, row.suite, row.id))


def _gravity(row: FindingRow) -> int:
    """0 for what weighs most."""
    grave = ("masked", "suspicious", "not judged")
    return grave.index(row.verdict) if row.verdict in grave else len(grave) + (row.severity == "note")


def _identity(html: str) -> str:
    return html


def _packed(html: str) -> Markup:
    return packed(_tidy(html))


def _asset(name: str) -> str:
    """A file of the page, tidied as the whole page will be, so that the digest of the script holds."""
    return _tidy(resources.files("bench.reporting.page").joinpath("templates", name).read_text(encoding="utf-8"))


def _tidy(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.split("\n") if line.strip())
