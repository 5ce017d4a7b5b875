"""Boards seen otherwise: a row for all seeds of a method, or the Pareto front of two columns."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from bench.leaderboard.boards import Board, Cell, Row
from bench.leaderboard.labels import FROM_ONE, select_labels
from bench.leaderboard.order import set_apart, sorted_rows


def by_method(board: Board, groups: Mapping[str, str]) -> Board:
    """A board with one row a group of models (`groups`: model -> its group): means over seeds, and their spread."""
    members: dict[str, list[Row]] = {}
    for row in board.rows:
        members.setdefault(groups[row.name], []).append(row)
    rows = []
    for name, own in members.items():
        cells = tuple(map(_mean, zip(*(row.cells for row in own), strict=True)))
        known = ", ".join(dict.fromkeys(row.best_known for row in own if row.best_known))
        rows.append(Row(name, name, cells, models=len(own), best_known=known))
    rows = set_apart(rows, [board.columns.index(board.sort)])
    return replace(board, rows=sorted_rows(rows, board.columns, board.sort))


def _mean(cells: Iterable[Cell | None]) -> Cell | None:
    found = [cell for cell in cells if cell is not None]
    if not found:
        return None
    values, counts = [cell.value for cell in found], {count for cell in found for count in cell.counts}
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    return Cell(statistics.fmean(values), spread=spread, counts=tuple(sorted(counts)), models=len(found))


def pareto_front(board: Board, names: tuple[str, str]) -> Board:
    """Two columns, and the rows that no other row equals or beats in both, best in the first on top (ties kept).

    A row whose values cannot be held against the others' is beaten by none, beats none and stands apart.
    """
    places = [board.place(name) for name in dict.fromkeys(names)]
    columns = tuple(board.columns[place] for place in places)
    rows, points = [], []
    for row in board.rows:
        cells = tuple(cell for place in places if (cell := row.cells[place]) is not None)
        if len(cells) == len(places):
            rows.append(replace(row, cells=cells))
            points.append(
                [-one.value if column.lower_first else one.value for one, column in zip(cells, columns, strict=True)]
            )
    rows = set_apart(rows, range(len(places)))
    best = undominated(points, [row.apart for row in rows])
    front = sorted_rows([rows[place] for place in best], columns, columns[0])
    title = f"{board.title}: Pareto front of {names[0]} and {names[1]}, {len(front)} of {len(board.rows)}"
    return Board(title, board.shared, columns, front, sort=columns[0])


def with_columns(boards: Sequence[Board], names: Sequence[str]) -> list[Board]:
    """The boards that have any of these columns, with those alone, in the order asked.

    Args:
        names: labels or headings, also with their radius as a decimal, or wildcards.

    Raises:
        BenchError: a name that no board has.
    """
    labels = (column.label for board in boards for column in board.columns)
    wanted = select_labels([name.removeprefix(FROM_ONE) for name in names], labels, "column")
    chosen = []
    for board in boards:
        places = {column.label: place for place, column in enumerate(board.columns)}
        kept = [places[name] for name in wanted if name in places]
        if kept:
            rows = tuple(replace(row, cells=tuple(row.cells[place] for place in kept)) for row in board.rows)
            chosen.append(replace(board, columns=tuple(board.columns[place] for place in kept), rows=rows))
    return chosen


def undominated(points: Sequence[Sequence[float]], apart: Sequence[bool]) -> list[int]:
    """The positions of the points that no other equals or beats in all coordinates; equal points all stay.

    Args:
        apart: for each point whether it is held against no other, so that it stays and none goes for it.
    """
    held = [point for point, alone in zip(points, apart, strict=True) if not alone]
    return [
        place
        for place, (point, alone) in enumerate(zip(points, apart, strict=True))
        if alone or not any(other != point and all(map(float.__ge__, other, point)) for other in held)
    ]
