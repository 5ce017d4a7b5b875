"""The tables of the page: models by metrics with intervals, comparable runs together, the latest of each model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.core.files import sha256_bytes
from bench.core.threat import NORM_LABELS
from bench.leaderboard.evidence.finished_runs import Run
from bench.leaderboard.labels import ball
from bench.leaderboard.labels import name as metric_name
from bench.leaderboard.metrics import Direction, MetricKey, Unit, keys_of
from bench.leaderboard.pivot import COMPARABLE, precision_note
from bench.reporting.page.content import Names, anchor, interval, number

Ranker = Callable[[Sequence[Run], MetricKey], Mapping[str, int]]
"""Ranks of the models of comparable runs in one metric, with ties; empty where the evidence does not allow a test."""
_MANY_COLUMNS = 9
_LARGEST_DRAWN = 1e12
_TOO_MANY_COLUMNS = 60
_OVERVIEW = "overview"
_SHARED = ("clean_accuracy", "union_accuracy")
_ORDER = ("clean_accuracy", "robust_accuracy", "union_accuracy")


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of a table."""

    value: float
    low: float
    high: float
    text: str
    interval: str
    best: bool

    @property
    def drawable(self) -> bool:
        """Whether a plot has a place for it: not for what is infinite, nor for what no suite of ours measures."""
        return all(abs(part) < _LARGEST_DRAWN for part in (self.value, self.low, self.high) if part == part)


@dataclass(frozen=True, slots=True)
class Column:
    """One metric.

    Attributes:
        label, where: its header: what it is, and under which attack, norm and radius where the label does not say.
        views: the choices of columns that it is part of.
    """

    key: MetricKey
    label: str
    where: str
    views: Sequence[str]
    direction: Direction
    percent: bool

    @property
    def unit(self) -> str:
        return "%" if self.percent else ""

    @property
    def lower_first(self) -> bool:
        """Whether the best value is the smallest."""
        return self.direction == "lower"


@dataclass(frozen=True, slots=True)
class Row:
    """One model of a table.

    Attributes:
        masking: the run's verdict on gradient masking, empty where it made none.
        rank: 1 plus the number of models significantly better in the column the table is sorted by; None if not tested.
    """

    model: str
    label: str
    method: str
    slot: int
    masking: str
    cells: Sequence[Cell | None]
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class BoardTable:
    """One group of comparable runs.

    Attributes:
        views: choices of columns; the first is shown at first, the last is all of them.
        sort: position of the column that the rows are sorted by.
        runs: the latest run of each model, in the order of the rows.
    """

    id: str
    title: str
    detail: str
    columns: list[Column]
    views: list[str]
    sort: int
    rows: list[Row]
    runs: list[Run]

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
            position
            for position, column in enumerate(self.columns)
            if (column.key.metric, column.key.norm, column.key.eps) == (metric, norm, eps)
            and subject in (None, column.key.subject)
        ]
        worst = [position for position in found if self.columns[position].key.attack == "worst"]
        return next(iter(worst or found), None)


def make_tables(runs: Sequence[Run], names: Names, ranker: Ranker | None = None) -> list[BoardTable]:
    """One table for each group of comparable runs: those of most models and images first, smaller copies last.

    What a model did under an older version of a suite is left out where it has been judged under a newer.
    """
    groups: dict[tuple[Any, ...], dict[str, Run]] = {}
    for run in sorted(_of_newest_versions(runs), key=lambda run: str(run.facts["finished_at"])):
        facts = tuple(run.facts[name] for name in COMPARABLE if name != "n_examples")
        groups.setdefault((*facts, run.examples), {})[run.model] = run
    tables = [_table(list(latest.values()), names, ranker) for latest in groups.values()]
    return sorted(tables, key=lambda table: _table_order(table, tables))


def _of_newest_versions(runs: Sequence[Run]) -> list[Run]:
    newest: dict[tuple[str, str, str], int] = {}
    versions = [((run.model, str(run.facts["dataset"]), str(run.facts["suite"])), _version(run)) for run in runs]
    for judged, version in versions:
        newest[judged] = max(version, newest.get(judged, version))
    return [run for run, (judged, version) in zip(runs, versions, strict=True) if version == newest[judged]]


def _version(run: Run) -> int:
    return int(run.facts["suite_version"])


def _table_order(table: BoardTable, tables: Sequence[BoardTable]) -> tuple[Any, ...]:
    dataset = str(table.runs[0].facts["dataset"])
    models = max(len(other.rows) for other in tables if str(other.runs[0].facts["dataset"]) == dataset)
    return -models, dataset, is_smaller_copy(table, tables), -len(table.rows), -table.images, table.title, table.id


def _table(runs: list[Run], names: Names, ranker: Ranker | None) -> BoardTable:
    values = {run.model: _values(run) for run in runs}
    every = _in_reading_order(dict.fromkeys(key for found in values.values() for key in found))
    keys = _of_first_measures(every) if len(every) > _TOO_MANY_COLUMNS else every
    attacks = {key.attack for key in keys if key.attack and key.attack != "worst"}
    declared = {
        key: (row["direction"], row["unit"])
        for run in runs
        for key, row in zip(keys_of(run.rows), run.rows.to_dict("records"), strict=True)
    }
    columns = [
        _column(key, declared[key], views, several_attacks=len(attacks) > 1)
        for key, views in zip(keys, _views(keys, runs[0].reference), strict=True)
    ]
    best = [_best(column, [found.get(column.key) for found in values.values()]) for column in columns]
    sort = _sort_column(columns)
    ranks = {} if ranker is None or len(runs) < 2 else ranker(runs, columns[sort].key)
    rows = []
    for run in runs:
        cells = [
            None if (found := values[run.model].get(column.key)) is None else _cell(column, found, top)
            for column, top in zip(columns, best, strict=True)
        ]
        rows.append(
            Row(run.model, names.label(run.model), str(run.facts["method"]), names.slots[run.model], run.masking, cells,
                ranks.get(run.model))
        )  # fmt: skip
    order = sorted(range(len(rows)), key=lambda place: _place(rows[place], sort, lower=columns[sort].lower_first))
    facts = runs[0].facts
    detail = (
        f"{facts['dataset']}, {facts['split']} split, {runs[0].examples:,} images, suite version "
        f"{facts['suite_version']}, seed {facts['seed']}{precision_note(str(facts['precision']))}, {len(rows)} "
        f"model{'s' if len(rows) > 1 else ''}"
    )
    if len(keys) < len(every):
        detail += f"; {len(every) - len(keys)} metrics of other similarity measures are in leaderboard.csv"
    group = json.dumps([str(facts[name]) for name in COMPARABLE if name != "n_examples"] + [runs[0].examples])
    identity = anchor(facts["suite"], sha256_bytes(group.encode())[:6])
    shown = list(dict.fromkeys(view for column in columns for view in column.views))
    shown.sort(key=lambda view: (view != _OVERVIEW, view == "all"))
    return BoardTable(
        identity, str(facts["suite"]), detail, columns, shown, sort,
        [rows[place] for place in order], [runs[place] for place in order],
    )  # fmt: skip


def _in_reading_order(keys: Iterable[MetricKey]) -> list[MetricKey]:
    """Clean accuracy, robust accuracies by attack, norm and radius, their union, the rest as the run has it."""
    norms = list(NORM_LABELS)

    def place(key: MetricKey) -> tuple[Any, ...]:
        if key.metric not in _ORDER:
            return (len(_ORDER),)
        order = norms.index(key.norm) if key.norm in norms else len(norms)
        return _ORDER.index(key.metric), key.attack == "worst", key.attack, order, key.norm, key.eps or 0.0

    return sorted(keys, key=place)


def _of_first_measures(keys: Sequence[MetricKey]) -> list[MetricKey]:
    """Of metrics named kind/measure, whose maps come by the hundred, those of each kind's first measure."""
    first: dict[str, str] = {}
    return [key for key in keys if first.setdefault(key.metric.partition("/")[0], key.metric) == key.metric]


def _column(key: MetricKey, declared: tuple[Direction, Unit], views: Sequence[str], *, several_attacks: bool) -> Column:
    direction, unit = declared
    named = key.attack if several_attacks else ""
    if key.metric == "clean_accuracy":
        label, where = "clean", ""
    elif key.metric == "union_accuracy":
        label, where = "union", named
    elif key.metric == "robust_accuracy":
        label, where = ball(key), named
    else:
        label, where = metric_name(key), " ".join(part for part in (named, ball(key)) if part)
    return Column(key, label, where, views, direction, unit == "share")


def _values(run: Run) -> dict[MetricKey, tuple[float, float, float]]:
    rows = run.rows
    return dict(zip(keys_of(rows), zip(rows["value"], rows["ci_low"], rows["ci_high"], strict=True), strict=True))


def _best(column: Column, found: Sequence[tuple[float, float, float] | None]) -> float | None:
    """The best value of a column; None where better has no meaning, or nobody to be better than."""
    values = [one[0] for one in found if one is not None]
    if column.direction == "descriptive" or len(values) < 2:
        return None
    return min(values) if column.lower_first else max(values)


def _cell(column: Column, found: tuple[float, float, float], best: float | None) -> Cell | None:
    value, low, high = (float(part) for part in found)
    if value != value:
        return None
    bounds = interval(low, high, percent=column.percent)
    return Cell(value, low, high, number(value, percent=column.percent), bounds, best is not None and value == best)


def _sort_column(columns: Sequence[Column]) -> int:
    for wanted in ("union_accuracy", "robust_accuracy"):
        for position, column in enumerate(columns):
            if column.key.metric == wanted and _OVERVIEW in column.views:
                return position
    judged = [place for place, column in enumerate(columns) if column.direction != "descriptive"]
    other = [place for place in judged if columns[place].key.metric != "clean_accuracy"]
    return (other or judged or [0])[0]


def _place(row: Row, column: int, *, lower: bool) -> tuple[bool, float]:
    cell = row.cells[column]
    return (True, 0.0) if cell is None else (False, cell.value if lower else -cell.value)


def _views(keys: Sequence[MetricKey], reference: Mapping[str, float]) -> list[tuple[str, ...]]:
    """The choices that each column is part of: an overview, one for each family of metrics, all."""
    if len(keys) <= _MANY_COLUMNS:
        return [(_OVERVIEW,)] * len(keys)
    families = list(dict.fromkeys(_family(key) for key in keys if key.metric not in _SHARED))
    radii: dict[str, set[float]] = {}
    for key in keys:
        if key.metric == "robust_accuracy" and key.eps is not None:
            radii.setdefault(key.norm, set()).add(key.eps)
    central = {norm: reference.get(norm, sorted(found)[len(found) // 2]) for norm, found in radii.items()}
    views: list[tuple[str, ...]] = []
    for key in keys:
        if key.metric in _SHARED:
            views.append((_OVERVIEW, *families, "all"))
            continue
        at_reference = key.metric == "robust_accuracy" and key.eps == central.get(key.norm)
        overview = at_reference or (not radii and _family(key) == families[0])
        views.append((_OVERVIEW, _family(key), "all") if overview else (_family(key), "all"))
    return views


def _family(key: MetricKey) -> str:
    """Robust accuracies by norm, others by metric."""
    return NORM_LABELS.get(key.norm, key.norm) if key.metric == "robust_accuracy" else key.metric


def is_smaller_copy(table: BoardTable, others: Sequence[BoardTable]) -> bool:
    """Whether another table measures the same, of at least the same models, on more images."""
    own = table.runs[0]
    if not own.suite:
        return False
    return any(
        other.images > table.images
        and other.runs[0].measured_as == own.measured_as
        and other.runs[0].facts["dataset"] == own.facts["dataset"]
        and {run.model for run in table.runs} <= {run.model for run in other.runs}
        for other in others
    )
