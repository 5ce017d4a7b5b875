"""From a leaderboard to a web page: cards and digests come from the registry, saliency from the models."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from bench.attributions.registry import find_method
from bench.catalog.models import ModelEntry, list_models
from bench.catalog.suites import list_suites
from bench.comparison.ranks import ranked_board
from bench.core.devices import resolve_device
from bench.core.errors import BenchError
from bench.core.files import clear_disk_errors, write_atomically
from bench.core.names import select_names
from bench.core.threat import NORMS, Norm
from bench.data import load_split
from bench.leaderboard.boards import Board
from bench.leaderboard.evidence.finished_runs import Run, read_runs
from bench.leaderboard.table import read_leaderboard
from bench.reporting.page import PageSource, SaliencySet, build_page, saliency_set
from bench.reporting.saliency.rows import PanelSettings, PredictionAttack, panel_rows

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """What the user asked for, as the command line has it."""

    leaderboard: Path
    output: Path
    title: str = "RIBench leaderboard"
    dataset: str | None = None
    suite: str | None = None
    images: int = 3
    """Images a model in the saliency panels; 0 leaves them out."""
    device: str = "auto"
    data_dir: Path | None = None
    download: bool = False
    plain: bool = False
    """Whether the page is to be readable without JavaScript, at several times the size."""
    registry: Path | None = None


@dataclass(frozen=True, slots=True)
class ReportOutcome:
    """A written page.

    Attributes:
        remarks: what could not go onto the page, and why.
    """

    path: Path
    size: int
    models: int
    runs: int
    remarks: list[str]


def make_report(request: ReportRequest) -> ReportOutcome:
    """Write the page; nothing is written unless all of it could be made.

    Raises:
        BenchError: no leaderboard or no row to show, an output that cannot be written, damaged weights or verdicts.
    """
    _check_output(request.output)
    if request.images < 0:
        raise BenchError(f"{request.images} is not a number of images; use 0 or more.", option="images")
    rows = _chosen_rows(request)
    runs = read_runs(rows, request.leaderboard)
    registry = {entry.card.name: entry for entry in list_models(registry=request.registry)}
    same = {run.model: registry[run.model] for run in _newest(runs) if _is_registered(run, registry)}
    saliency, remarks = _saliency(request, runs, same)
    remarks += sorted({run.problem or run.doubt for run in runs if run.problem or run.doubt})
    source = PageSource(
        rows,
        request.leaderboard,
        request.title,
        cards={name: _card(entry) for name, entry in same.items()},
        suites={suite.name: suite.sha256 for suite in list_suites()},
        models={name: entry.card.weights.sha256 for name, entry in registry.items()},
        saliency=saliency,
        ranker=lambda board: _ranked(board, rows, request.leaderboard),
        plain=request.plain,
    )
    content = build_page(source).encode()
    write_atomically(request.output, content)
    return ReportOutcome(request.output, len(content), len({run.model for run in runs}), len(runs), remarks)


def _ranked(board: Board, rows: pd.DataFrame, leaderboard: Path) -> Board:
    try:
        return ranked_board(board, rows, leaderboard)
    except BenchError as error:
        logger.info("no ranks: %s", error)
        return board


def _check_output(path: Path) -> None:
    if path.suffix.lower() not in (".html", ".htm"):
        raise BenchError(f"the page {path} must end in .html; it is one file.", option="output")
    if path.is_dir():
        raise BenchError(f"the page {path} is a folder; name a file in it.", option="output")
    with clear_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)


def _chosen_rows(request: ReportRequest) -> pd.DataFrame:
    rows = read_leaderboard(request.leaderboard)
    if rows.empty:
        raise BenchError(f"the leaderboard in {request.leaderboard} has no rows yet; make some with `bench run`.")
    for column, wanted in (("dataset", request.dataset), ("suite", request.suite)):
        if wanted is not None:
            names = select_names([wanted], sorted(set(rows[column])), column.replace("dataset", "data set"))
            rows = rows[rows[column].isin(names)]
    if rows.empty:
        raise BenchError(f"no run of suite {request.suite} on {request.dataset} is in {request.leaderboard}.")
    return rows


def _newest(runs: Iterable[Run]) -> list[Run]:
    """The newest run of every model."""
    newest = {run.model: run for run in sorted(runs, key=lambda run: str(run.facts["finished_at"]))}
    return [newest[name] for name in sorted(newest)]


def _is_registered(run: Run, registry: Mapping[str, ModelEntry]) -> bool:
    return run.model in registry and registry[run.model].card.weights.sha256 == run.facts["model_sha256"]


def _card(entry: ModelEntry) -> dict[str, Any]:
    card: dict[str, Any] = json.loads(entry.card.model_dump_json(exclude_none=True))
    return card


def _saliency(
    request: ReportRequest, runs: list[Run], entries: Mapping[str, ModelEntry]
) -> tuple[list[SaliencySet], list[str]]:
    """Panels of every data set that they can be made for, and why of those that they can't."""
    if request.images == 0:
        return [], []
    remarks = [
        f"no saliency panel of {run.model}: its weights are not in this registry"
        for run in _newest(runs)
        if run.model not in entries
    ]
    remarks += [
        f"no saliency panel of {name}: it needs {entry.card.program.file}, and a page runs no program"
        for name, entry in entries.items()
        if entry.card.program is not None
    ]
    entries = {name: entry for name, entry in entries.items() if entry.card.program is None}
    sets = []
    for name in sorted({entry.card.dataset for entry in entries.values()}):
        radius = _radius([run for run in runs if run.facts["dataset"] == name])
        if radius is None:
            remarks.append(f"no saliency panels of {name}: no run's suite names a reference radius for it")
            continue
        try:
            dataset = load_split(name, "test", data_dir=request.data_dir, download=request.download)
        except BenchError as error:
            remarks.append(f"no saliency panels of {name}: {error}")
            continue
        own = [entry for entry in entries.values() if entry.card.dataset == name]
        norm, eps = radius
        settings = PanelSettings([find_method("gradient")], PredictionAttack(norm), eps, seed=0)
        ids, device = first_of_each_class(dataset.labels, request.images), resolve_device(request.device)
        rows = [row for entry in own for row in panel_rows(entry, dataset, ids, settings, device)[0]]
        sets.append(saliency_set(dataset, rows, settings))
    return sets, remarks


def first_of_each_class(labels: Tensor, count: int) -> list[int]:
    """Positions of the first images of `count` different classes, in order; fewer where there are fewer classes."""
    seen: dict[int, int] = {}
    for position, label in enumerate(labels.tolist()):
        seen.setdefault(label, position)
        if len(seen) == count:
            break
    return sorted(seen.values())


def _radius(runs: Iterable[Run]) -> tuple[Norm, float] | None:
    """The reference radius of the first norm that a suite names one for, of the run over most images."""
    for run in sorted(runs, key=lambda run: -run.examples):
        for norm in NORMS:
            if norm in run.reference:
                return norm, run.reference[norm]
    return None
