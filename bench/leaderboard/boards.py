"""The leaderboard as people read it: models by metrics, only comparable rows side by side.

Terminal, CSV, Markdown, LaTeX, JSON, the page and its plots all draw from these boards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.core.names import unknown_name
from bench.core.threat import NORM_LABELS
from bench.leaderboard.best_known import is_external, lowered_rows
from bench.leaderboard.comparable import COMPARABLE, table_notes, table_title
from bench.leaderboard.labels import FROM_ONE, label, read_from_one, with_decimals
from bench.leaderboard.metrics import Direction, MetricKey, Prominence, Unit, keys_of
from bench.leaderboard.order import comparable, order_note, set_apart, sorted_rows

_ACCURACIES = ("clean_accuracy", "robust_accuracy", "union_accuracy")
_FEW = 5
"""Headlines shown at every radius, where there are no more, else at the largest; columns shown where there are none."""


@dataclass(frozen=True, slots=True)
class Column:
    """One metric of a board.

    Attributes:
        label: its name, as no other column of the board has it.
        central: whether it is worth showing where space is short.
        from_one: whether people read how much its values lack to 1, since all are near it; files keep the values.
    """

    key: MetricKey
    label: str
    direction: Direction
    unit: Unit
    prominence: Prominence = "usual"
    central: bool = True
    from_one: bool = False

    @property
    def lower_first(self) -> bool:
        """Whether the best value is the smallest."""
        return self.direction == "lower"

    @property
    def shows_least_first(self) -> bool:
        """Whether the best of what people read is the smallest."""
        return self.lower_first != self.from_one

    @property
    def heading(self) -> str:
        """What stands above the values that people read."""
        return FROM_ONE + self.label if self.from_one else self.label

    def shown(self, cell: Cell) -> Cell:
        """The values that people read."""
        if not self.from_one:
            return cell
        return replace(cell, value=1 - cell.value, ci_low=1 - cell.ci_high, ci_high=1 - cell.ci_low)


@dataclass(frozen=True, slots=True)
class Cell:
    """A value with its interval, NaN where there is none; of a row for several models their mean, and its spread.

    Attributes:
        counts: how many examples it is over; of several models each different number, ascending.
        models: how many models of a row for several it is the mean of.
    """

    value: float
    ci_low: float = math.nan
    ci_high: float = math.nan
    spread: float = math.nan
    counts: tuple[int, ...] = ()
    models: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One model's latest run, or all training seeds of a method.

    Attributes:
        cells: one a column, None where there is no number.
        run_id: empty where the row stands for several models.
        models: how many models it stands for; 0 where it is one model's own.
        best_known: whose adversarial images have lowered it below what the suite's own attacks found; empty if none.
        apart: whether its value in the column the board is sorted by is held against no other's; `order.comparable`.
        rank: 1 plus the number of models significantly better in the column the board is sorted by; None if not tested.
    """

    name: str
    method: str
    cells: tuple[Cell | None, ...]
    run_id: str = ""
    models: int = 0
    rank: int | None = None
    best_known: str = ""
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Board:
    """One table: the latest run of each model under one suite, data set and number of examples of the run.

    Attributes:
        title: names what all rows share.
        shared: the columns of COMPARABLE.
        rows: best first by the column `sort`; those that stand apart come after the others.
        note: what the title adds to what is shared: a precision, digests.
    """

    title: str
    shared: dict[str, Any]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    sort: Column
    note: str = ""

    @property
    def of_methods(self) -> bool:
        """Whether a row stands for all training seeds of a method."""
        return any(row.models for row in self.rows)

    @property
    def marks_best_known(self) -> bool:
        """Whether others' adversarial images have lowered any row."""
        return any(row.best_known for row in self.rows)

    @property
    def ranked(self) -> bool:
        """Whether the models were tested against each other."""
        return any(row.rank is not None for row in self.rows)

    @property
    def order_note(self) -> str:
        """What a reader has to know of the order: which rows stand apart; empty where none does."""
        return order_note(self.rows)

    @property
    def runs(self) -> dict[str, str]:
        """Model -> id of the run that its row comes from."""
        return {row.name: row.run_id for row in self.rows}

    def place(self, name: str) -> int:
        """The position of a column by its label; raises BenchError."""
        column = _named(self.columns, name)
        if column is None:
            raise unknown_name(name, [column.label for column in self.columns], "column")
        return self.columns.index(column)

    def fewer(self, row: Row, cell: Cell | None) -> dict[str, str]:
        """How many examples, `n`, and `models` a value is over where these are not all of the run's and the row's."""
        found = {}
        if cell and cell.counts and cell.counts[0] < self.shared["n_examples"]:
            found["n"] = "-".join(map(str, dict.fromkeys((cell.counts[0], cell.counts[-1]))))
        if cell and 0 < cell.models < row.models:
            found["models"] = str(cell.models)
        return found

    def best(self, place: int) -> float | None:
        """The best value of a column; None where none is better than another, there are not two, or they are over
        different numbers of examples or not over all models of their rows."""
        values = [cell.value for row in self.rows if (cell := row.cells[place]) is not None]
        mixed = sum(comparable(self.rows, place)) < len(values)
        if mixed or len(values) < 2 or self.columns[place].direction == "descriptive":
            return None
        return min(values) if self.columns[place].lower_first else max(values)


def make_boards(rows: pd.DataFrame, sort: str | None = None, leaderboard: Path | None = None) -> list[Board]:
    """Boards of all groups of comparable rows, in the order of COMPARABLE, a suite's newest version first.

    Where the `leaderboard` that the rows are of is given, others' images lower rows of the very net alone.

    Raises:
        BenchError: no board has the column `sort`.
    """
    rows = rows.assign(counted=rows["n_examples"], n_examples=rows.groupby("run_id")["n_examples"].transform("max"))
    boards, seen = [], set()
    groups: list[tuple[dict[str, Any], pd.DataFrame]]
    groups = [(dict(zip(COMPARABLE, key, strict=True)), group) for key, group in rows.groupby(list(COMPARABLE))]
    groups.sort(key=lambda one: (one[0]["dataset"], one[0]["split"], one[0]["suite"], -one[0]["suite_version"]))
    for (shared, group), note in zip(groups, table_notes([shared for shared, _ in groups]), strict=True):
        latest, whose = lowered_rows(_latest(group[~is_external(group)]), group, leaderboard)
        columns, found = _cells(latest)
        found = [replace(row, best_known=whose.get(row.name, "")) for row in found]
        seen |= {column.label for column in columns}
        by = _named(columns, sort) if sort else _default_sort(columns)
        if by is not None:
            ordered = sorted_rows(set_apart(found, [columns.index(by)]), columns, by)
            boards.append(Board(table_title(shared, note), shared, columns, ordered, sort=by, note=note))
    if not boards and sort is not None:
        raise unknown_name(sort, seen, "metric to sort by")
    return boards


def seen_from_one(column: Column, cells: Iterable[Cell | None]) -> Column:
    """The column, to be read as its distance to 1 where more is better and all its values are near 1."""
    values = (cell.value for cell in cells if cell is not None)
    return replace(column, from_one=read_from_one(values, column.direction, column.unit))


def _named(columns: Sequence[Column], name: str) -> Column | None:
    """The column of that label or heading; its radius may be written as a decimal."""
    exact = [column for column in columns if name in (column.label, column.heading)]
    return next(iter(exact + [column for column in columns if with_decimals(column.label) == name]), None)


def _latest(group: pd.DataFrame) -> pd.DataFrame:
    """The rows of each model's latest run."""
    order = group.assign(position=range(len(group))).sort_values(["finished_at", "position"], kind="stable")
    last_run = order.groupby("model")["run_id"].last()
    return group[group["run_id"] == group["model"].map(last_run)]


def _cells(rows: pd.DataFrame) -> tuple[tuple[Column, ...], list[Row]]:
    """Columns in reading order, and a row each model, by name."""
    declared: dict[MetricKey, tuple[Direction, Unit, Prominence]] = {}
    found: dict[str, dict[MetricKey, Cell]] = {}
    values = zip(*(rows[name].tolist() for name in ("model", "counted", "value", "ci_low", "ci_high")), strict=True)
    declarations = zip(*(rows[name].tolist() for name in ("direction", "unit", "prominence")), strict=True)
    for key, (model, count, *numbers), declaration in zip(keys_of(rows), values, declarations, strict=True):
        declared.setdefault(key, declaration)
        cells = found.setdefault(model, {})
        if not math.isnan(numbers[0]):
            cells[key] = Cell(numbers[0], numbers[1], numbers[2], counts=(count,))
    columns = tuple(seen_from_one(one, (own.get(one.key) for own in found.values())) for one in _columns(declared))
    methods = dict(zip(rows["model"], rows["method"], strict=True))
    runs = dict(zip(rows["model"], rows["run_id"], strict=True))
    return columns, [
        Row(model, methods[model], tuple(found[model].get(column.key) for column in columns), runs[model])
        for model in sorted(found)
    ]


def _columns(declared: Mapping[MetricKey, tuple[Direction, Unit, Prominence]]) -> tuple[Column, ...]:
    attacks = {key.attack for key in declared if key.metric == "robust_accuracy" and key.attack != "worst"}
    columns: dict[str, Column] = {}
    for key in _in_reading_order({key: prominence for key, (*_, prominence) in declared.items()}):
        name = label(key, attack=len(attacks) > 1)
        # radii may differ beyond the fourth digit, and a stranger's metrics may be named like ours
        name = f"{name} ({key})" if name in columns else name
        columns[name] = Column(key, name, *declared[key], central=False)
    central = _central(list(columns.values()))
    return tuple(replace(column, central=column in central) for column in columns.values())


def _in_reading_order(keys: Mapping[MetricKey, Prominence]) -> list[MetricKey]:
    """Accuracies by attack, norm and radius; headlines by metric and what they are of; the rest as the run has it."""
    metrics = list(dict.fromkeys(key.metric for key in keys))
    norms = ["", *NORM_LABELS]

    def order(key: MetricKey) -> tuple[Any, ...]:
        norm = norms.index(key.norm) if key.norm in norms else len(norms)
        if key.metric in _ACCURACIES:
            return _ACCURACIES.index(key.metric), key.attack == "worst", key.attack, norm, key.norm, key.eps or 0.0
        if keys[key] != "headline":
            return (len(_ACCURACIES) + 1,)
        place = metrics.index(key.metric)
        return len(_ACCURACIES), place, key.subject, key.attack == "worst", norm, key.norm, key.attack, key.eps or 0.0

    return sorted(keys, key=order)


def _central(columns: Sequence[Column]) -> list[Column]:
    """Clean, union, and each norm's middle radius; else what the suite is about; else what comes first."""
    chosen = [column for column in columns if column.key.metric in ("clean_accuracy", "union_accuracy")]
    robust = [column for column in columns if column.key.metric == "robust_accuracy"]
    for norm in dict.fromkeys(column.key.norm for column in robust):
        radii = sorted({column.key.eps or 0.0 for column in robust if column.key.norm == norm})
        middle = (norm, radii[len(radii) // 2])
        chosen += [column for column in robust if (column.key.norm, column.key.eps or 0.0) == middle]
    headlines = [column for column in columns if column.prominence == "headline"]
    if len(headlines) > _FEW:
        largest: dict[MetricKey, float] = {}
        for column in headlines:
            anywhere = replace(column.key, eps=None)
            largest[anywhere] = max(column.key.eps or 0.0, largest.get(anywhere, 0.0))
        headlines = [one for one in headlines if (one.key.eps or 0.0) == largest[replace(one.key, eps=None)]]
    chosen += headlines
    if len(chosen) > 1:
        return chosen
    few = [column for column in columns if column.prominence != "detail"] or columns
    return [*chosen, *few[:_FEW], _default_sort(columns)]


def _default_sort(columns: Sequence[Column]) -> Column:
    """The union over norms, else what judges a model, central columns first and plain accuracy last."""
    judged = [column for column in columns if column.direction != "descriptive"]
    other = [column for column in judged if column.key.metric != "clean_accuracy"]
    union = [column for column in columns if column.key.metric == "union_accuracy"]
    return next(iter([*union, *(column for column in other if column.central), *other, *judged, *columns]))
