"""The tables of the page: boards of the leaderboard, with what a page adds: views, intervals, findings, links."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.core.files import sha256_bytes
from bench.core.threat import NORM_LABELS
from bench.leaderboard.boards import Board, Column, make_boards
from bench.leaderboard.boards import Row as BoardRow
from bench.leaderboard.comparable import COMPARABLE
from bench.leaderboard.controls import beaten_cells
from bench.leaderboard.evidence.finished_runs import Run, shared_reference
from bench.leaderboard.labels import balls
from bench.leaderboard.order import comparable
from bench.leaderboard.table import of_newest_versions
from bench.reporting.page.content import DataTable, Names, Number, anchor

Reviser = Callable[[Board], Board]
"""Adds ranks to a board whose evidence allows a test, or has a row for all training seeds of a method."""
_MANY_COLUMNS = 9
_TOO_MANY_COLUMNS = 60
_OVERVIEW = "overview"
_SHARED = ("clean_accuracy", "union_accuracy")


@dataclass(frozen=True, slots=True)
class Row:
    """One model of a table, its rank as the board has it.

    Attributes:
        best_known: whose adversarial images have lowered it; empty if none have.
        masking: the run's verdict on gradient masking, empty where it made none.
    """

    model: str
    label: str
    method: str
    slot: int
    masking: str
    cells: Sequence[Number | None]
    rank: int | None
    best_known: str = ""


@dataclass(frozen=True, slots=True)
class BoardTable:
    """One group of comparable runs.

    Attributes:
        views: choices of columns; the first is shown at first, the last is all of them.
        views_of: for each column the choices that it is part of.
        sort: position of the column that the rows are sorted by.
        runs: the latest run of each model, in the order of the rows.
        source: where the suite comes from, as its file says.
        methods: means over training seeds, where any method has several.
    """

    id: str
    title: str
    detail: str
    columns: Sequence[Column]
    views: Sequence[str]
    views_of: Sequence[Sequence[str]]
    sort: int
    rows: Sequence[Row]
    runs: Sequence[Run]
    source: str = ""
    methods: DataTable | None = None

    @property
    def judges_masking(self) -> bool:
        """Whether any run has a verdict on gradient masking."""
        return any(row.masking for row in self.rows)

    @property
    def ranked(self) -> bool:
        """Whether the models were tested against each other."""
        return any(row.rank is not None for row in self.rows)

    @property
    def images(self) -> int:
        return self.runs[0].examples

    def column(self, metric: str, norm: str = "", eps: float | None = None, subject: str | None = None) -> int | None:
        """The position of a column; where several attacks ran, that of the worst of them."""
        found = [
            (column.key.attack != "worst", position)
            for position, column in enumerate(self.columns)
            if (column.key.metric, column.key.norm, column.key.eps) == (metric, norm, eps)
            and subject in (None, column.key.subject)
        ]
        return min(found)[1] if found else None

    def number(self, row: Row, metric: str, subject: str) -> Number | None:
        """A row's number where a plot has a place for it."""
        position = self.column(metric, subject=subject)
        found = None if position is None else row.cells[position]
        return found if found is not None and found.drawable else None


def make_tables(
    rows: pd.DataFrame,
    runs: Sequence[Run],
    names: Names,
    *,
    leaderboard: Path | None = None,
    ranker: Reviser | None = None,
    by_method: Reviser | None = None,
) -> list[BoardTable]:
    """One table for each group of comparable runs: attacks on predictions first, of most models and images before
    others; then a suite's older versions, smaller copies last.

    What a model did under an older version of a suite is left out where it has been judged under a newer.
    """
    by_id = {run.run_id: run for run in runs}
    tables = []
    for board in make_boards(of_newest_versions(rows), leaderboard=leaderboard):
        ranked = board if ranker is None or len(board.rows) < 2 else ranker(board)
        table = _table(ranked, [by_id[row.run_id] for row in board.rows], names)
        tables.append(replace(table, methods=by_method and _means(by_method(board))))
    return sorted(tables, key=lambda table: _table_order(table, tables))


def _table_order(table: BoardTable, tables: Sequence[BoardTable]) -> tuple[Any, ...]:
    dataset = str(table.runs[0].shared["dataset"])
    models = max(len(other.rows) for other in tables if str(other.runs[0].shared["dataset"]) == dataset)
    attacked = any(column.key.metric == "robust_accuracy" for column in table.columns)
    size = -len(table.rows), -table.images
    own, *rest = (one.runs[0].shared for one in (table, *tables))
    same = [one for one in rest if all(one[name] == own[name] for name in ("dataset", "split", "suite"))]
    older = any(one["suite_version"] > own["suite_version"] for one in same)
    return -models, dataset, not attacked, is_smaller_copy(table, tables), older, *size, table.title, table.id


def _table(board: Board, runs: list[Run], names: Names) -> BoardTable:
    columns: Sequence[Column] = board.columns
    if len(columns) > _TOO_MANY_COLUMNS:
        columns = [column for column in columns if column.prominence != "detail" or column == board.sort]
    places = [board.columns.index(column) for column in columns]
    best = {place: board.best(place) for place in places}
    alike = zip(*(comparable(board.rows, place) for place in places), strict=True)
    rows = [
        Row(
            model=run.model, label=names.short(run.model), method=row.method, slot=names.slots[run.model],
            masking=run.masking, rank=row.rank, best_known=row.best_known,
            cells=_numbers(board, row, dict(zip(places, held, strict=True)), best=best),
        )
        for row, run, held in zip(board.rows, runs, alike, strict=True)
    ]  # fmt: skip
    views_of = _views(columns, reference := shared_reference(runs))
    shown = dict.fromkeys(view for views in views_of for view in views)
    shared = board.shared
    group = json.dumps([str(shared[name]) for name in COMPARABLE if name != "n_examples"] + [runs[0].examples])
    return BoardTable(
        id=anchor(shared["suite"], sha256_bytes(group.encode())[:6]),
        title=str(shared["suite"]),
        detail=_detail(board, reference, hidden=len(board.columns) - len(columns)),
        columns=columns,
        views=sorted(shown, key=lambda view: (view != _OVERVIEW, view == "all")),
        views_of=views_of,
        sort=columns.index(board.sort),
        rows=rows,
        runs=runs,
        source=next((run.manifest.suite.source for run in runs if run.manifest), ""),
    )


def _means(board: Board) -> DataTable | None:
    """The central columns of a board by method; None where no row stands for several models."""
    if not any(row.models > 1 for row in board.rows):
        return None
    places = [place for place, column in enumerate(board.columns) if column.central]
    headers = [f"{(one := board.columns[place]).heading}{' %' if one.unit == 'share' else ''}" for place in places]
    rows = []
    for row in board.rows:
        shown = [row.name, str(row.models)]
        for place, number in zip(places, _numbers(board, row, dict.fromkeys(places, True), best={}), strict=True):
            fewer = ", ".join(f"{name} {count}" for name, count in board.fewer(row, row.cells[place]).items())
            shown.append("-" if number is None else f"{number.text} ({fewer})" if fewer else number.text)
        rows.append(shown)
    caption = f"Means over training seeds ± standard deviation, sorted by {board.sort.heading}"
    caption = "; ".join(filter(None, (caption, board.order_note)))
    return DataTable(caption, ["method", "models", *headers], rows)


def _detail(board: Board, reference: Mapping[str, float], *, hidden: int) -> str:
    shared, count = board.shared, len(board.rows)
    union = balls(reference) if any(column.key.metric == "union_accuracy" for column in board.columns) else ""
    detail = (
        f"{shared['dataset']}, {shared['split']} split, {shared['n_examples']:,} images, suite version "
        f"{shared['suite_version']}, seed {shared['seed']}{board.note}, {count} "
        f"model{'s' if count > 1 else ''}"
    )
    detail += "".join(f"; {more}" for more in (union and f"union of {union}", board.order_note) if more)
    return f"{detail}; {hidden} metrics of other similarity measures are in leaderboard.csv" if hidden else detail


def _numbers(
    board: Board, row: BoardRow, alike: Mapping[int, bool], *, best: Mapping[int, float | None]
) -> list[Number | None]:
    """A row's numbers, with what stands out of its column, falls behind a control or can be held against no other.

    Args:
        alike: the places of the columns, and in each whether the number can be held against others.
    """
    by = beaten_cells(board, row)
    return [
        None if (cell := row.cells[place]) is None else Number(
            (seen := (column := board.columns[place]).shown(cell)).value, seen.ci_low, seen.ci_high,
            percent=column.unit == "share", best=cell.value == best.get(place), beaten_by=by.get(column.key, ""),
            from_one=column.from_one, n=board.fewer(row, cell).get("n", ""), apart=not held, spread=cell.spread,
        )
        for place, held in alike.items()
    ]  # fmt: skip


def _views(columns: Sequence[Column], reference: Mapping[str, float]) -> list[tuple[str, ...]]:
    """The choices that each column is part of: an overview, one for each family of metrics, all."""
    if len(columns) <= _MANY_COLUMNS:
        return [(_OVERVIEW,)] * len(columns)
    families = list(dict.fromkeys(_family(column) for column in columns if column.key.metric not in _SHARED))
    views: list[tuple[str, ...]] = []
    for column in columns:
        key = column.key
        if key.metric in _SHARED:
            views.append((_OVERVIEW, *families, "all"))
            continue
        has_reference = key.metric == "robust_accuracy" and key.norm in reference
        overview = key.eps == reference[key.norm] if has_reference else column.central
        views.append((_OVERVIEW, _family(column), "all") if overview else (_family(column), "all"))
    return views


def _family(column: Column) -> str:
    """Robust accuracies by norm, others by metric."""
    key = column.key
    return NORM_LABELS.get(key.norm, key.norm) if key.metric == "robust_accuracy" else key.metric


def is_smaller_copy(table: BoardTable, others: Sequence[BoardTable]) -> bool:
    """Whether another table measures the same, of at least the same models, on more images."""
    own = table.runs[0]
    if own.manifest is None:
        return False
    return any(
        other.images > table.images
        and other.runs[0].measured_as == own.measured_as
        and other.runs[0].shared["dataset"] == own.shared["dataset"]
        and {run.model for run in table.runs} <= {run.model for run in other.runs}
        for other in others
    )
