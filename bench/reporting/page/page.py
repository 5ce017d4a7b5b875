"""The page as a whole: what goes on it, in which order, and the template that writes it down."""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

import bench
from bench.catalog.cards import ModelCard
from bench.leaderboard.evidence.finished_runs import Run, read_runs
from bench.reporting.page.boards import Reviser, is_smaller_copy, make_tables
from bench.reporting.page.content import Names, PlotGroup, anchor
from bench.reporting.page.curves import robustness_curves
from bench.reporting.page.findings import finding_groups
from bench.reporting.page.links import Links, breakable, linked
from bench.reporting.page.models import model_anchor, model_sections
from bench.reporting.page.retraining import retraining_plots
from bench.reporting.page.saliency import AdversarialSet, SaliencySet
from bench.reporting.page.studies import read_studies
from bench.reporting.page.svg import swatch
from bench.reporting.page.tradeoffs import robustness_tradeoffs, stability_tradeoffs

_GALLERY = 6
"""Models whose saliency is seen at once, a data set."""


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
        by_method: a board with a row for all training seeds of a method; without it tables have no such means.
        folders: full name of a model -> the folder of its card.
        links: how the page reaches files of the leaderboard; None: not at all.
        runs: those of the rows, where they have been read already.
        plain: whether everything stands readable in the file, several times as large; else all below the first table
            is packed.
    """

    rows: pd.DataFrame
    leaderboard: Path
    title: str
    cards: Mapping[str, ModelCard] = field(default_factory=dict)
    suites: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    saliency: Sequence[SaliencySet] = ()
    adversarial: Sequence[AdversarialSet] = ()
    ranker: Reviser | None = None
    by_method: Reviser | None = None
    folders: Mapping[str, Path] = field(default_factory=dict)
    links: Links | None = None
    runs: list[Run] | None = None
    plain: bool = False


def build_page(source: PageSource) -> str:
    """The page as HTML text, the same for the same leaderboard whenever it is built.

    It holds everything it shows: no other file, no address outside is loaded, and its own content security policy
    forbids both. All text from cards, rows, manifests and verdicts is escaped.

    Raises:
        BenchError: a study's verdict cannot be read.
    """
    runs = read_runs(source.rows, source.leaderboard) if source.runs is None else source.runs
    datasets = {str(run.shared["dataset"]) for run in runs}
    models = sorted({run.model for run in runs})
    slots: dict[str, int] = {}
    for one in sorted(datasets):  # every plot is of one data set
        slots |= {name: slot for slot, name in enumerate(m for m in models if m.partition("/")[0] == one)}
    names = Names(slots, len(datasets) > 1)
    content = _gather(source, runs, names)
    style, script = _asset("page.css"), _asset("page.js")
    html = _template(source.plain).render(
        title=source.title,
        content=content,
        runs=runs,
        runs_shown=sum(len(table.runs) for table in content["tables"]),
        images=max(run.examples for run in runs),
        datasets=sorted(datasets),
        suites=sorted({table.title for table in content["tables"]}),
        methods=sorted({str(run.shared["method"]) for run in runs}),
        newest=max(str(run.shared["finished_at"]) for run in runs),
        versions=sorted({str(run.shared["bench_version"]) for run in runs}),
        links=source.links or Links(source.leaderboard),
        leaderboard=source.leaderboard,
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


@cache  # translating it takes a good part of a small page's time
def _template(plain: bool) -> Template:
    environment = Environment(
        loader=PackageLoader("bench.reporting.page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"linked": linked, "breakable": breakable, "packing": Markup if plain else _packed}
    return environment.get_template("page.html.j2")


def _gather(source: PageSource, runs: list[Run], names: Names) -> dict[str, Any]:
    """All parts; a part that has nothing to show is empty, and the template leaves its section out."""
    tables = make_tables(
        source.rows, runs, names, leaderboard=source.leaderboard, ranker=source.ranker, by_method=source.by_method
    )
    drawn = [table for table in tables if not is_smaller_copy(table, tables)]
    cards = {name: card for name in names.slots if (card := source.cards.get(name) or _card(runs, name))}
    tradeoffs = [robustness_tradeoffs(table, names) for table in drawn] + stability_tradeoffs(drawn, cards, names)
    shown, links = {table.id: table.runs for table in tables}, source.links or Links(source.leaderboard)
    parts: dict[str, list[Any]] = {
        "tables": tables,
        "curves": [robustness_curves(table) for table in drawn],
        "tradeoffs": tradeoffs,
        "retraining": [retraining_plots(table) for table in drawn],
        "findings": finding_groups([run for own in shown.values() for run in own]),
        "studies": read_studies(source.leaderboard),
        "models": model_sections(
            shown, cards, names, suites=source.suites, models=source.models, links=links, folders=source.folders
        ),
    }
    found = {name: [one for one in part if one is not None] for name, part in parts.items()}
    saliency = [_shown_first(one, found["curves"]) for one in source.saliency if one.panels]
    return found | {"saliency": saliency, "adversarial": list(source.adversarial)}


def _shown_first(one: SaliencySet, curves: Sequence[PlotGroup]) -> tuple[SaliencySet, list[str], list[str]]:
    """A gallery; the models that are shown at first, those that the curves begin with before others; and the rest."""
    begun = [name for group in curves for name in group.first if name in one.panels]
    first = list(dict.fromkeys([*begun, *one.panels]))[:_GALLERY]
    return one, first, [name for name in one.panels if name not in first]


def _card(runs: Sequence[Run], name: str) -> ModelCard | None:
    """The card of the model's newest run that has its evidence."""
    own = [run.manifest for run in runs if run.model == name and run.manifest is not None]
    return max(own, key=lambda manifest: manifest.finished_at).card if own else None


def _packed(html: str) -> Markup:
    """A data block that the page's script puts back as it was; the same bytes for the same text.

    Plots and tables repeat themselves, so that they compress to a tenth. A browser does not run, show or load a data
    block, and base64 has no character that could end it.
    """
    block = base64.b64encode(gzip.compress(_tidy(html).encode(), mtime=0)).decode()
    return Markup('<script type="text/plain" class="packed">{}</script>').format(block)


def _asset(name: str) -> str:
    """A file of the page, tidied as the whole page will be, so that the digest of the script holds."""
    return _tidy(resources.files("bench.reporting.page").joinpath("templates", name).read_text(encoding="utf-8"))


def _tidy(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.split("\n") if line.strip())
