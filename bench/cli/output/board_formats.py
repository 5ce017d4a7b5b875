"""Boards as text: table, CSV, Markdown, LaTeX."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.table import Table
from rich.text import Text

from bench.cli.output import latex
from bench.cli.output.rendering import interval, literal, markdown, marked, narrowest, percent, table
from bench.core.files import csv_text
from bench.leaderboard.boards import Board, Cell, Column, Row
from bench.leaderboard.controls import MARK, MEANING, beaten_cells
from bench.leaderboard.labels import near_one, small_number
from bench.leaderboard.table import as_cell

Shown = TypeVar("Shown")


def _head(board: Board) -> list[str]:
    """The columns before the metrics."""
    kind = "method" if board.of_methods else "model"
    known = ["best known"] if board.marks_best_known else []
    return [kind, *known, *(["rank"] if board.ranked else []), *(["models"] if board.of_methods else [])]


def _names(board: Board, row: Row) -> list[str]:
    """A row's cells before the metrics."""
    rank = ["" if row.rank is None else str(row.rank)] if board.ranked else []
    known = [row.best_known] if board.marks_best_known else []
    return [row.name, *known, *rank, *([str(row.models)] if board.of_methods else [])]


def _text(cell: Cell | None, column: Column) -> str:
    """A value as people read it: per cent for shares, with the spread over seeds where rows are methods."""
    if cell is None:
        return "-"
    shown = percent if column.unit == "share" else small_number if column.from_one else _plain
    return shown(column.shown(cell).value) + (f" ± {shown(cell.spread)}" if cell.spread == cell.spread else "")


def _ends(cell: Cell | None, column: Column) -> str:
    """The 95 % interval, where there is one."""
    if cell is None or cell.ci_low != cell.ci_low:
        return ""
    ends = column.shown(cell)
    if column.from_one:
        return f" [{small_number(ends.ci_low)}, {small_number(ends.ci_high)}]"
    return f" {interval(ends.ci_low, ends.ci_high, percent=column.unit == 'share')}"


def _plain(value: float) -> str:
    return near_one(value) or f"{value:.3g}"


def _rows(
    board: Board,
    columns: Sequence[Column],
    plain: Callable[[str], str],
    best: Callable[[str], Shown],
    *,
    intervals: bool,
) -> list[list[str | Shown]]:
    """Every row, the best of each column as `best` writes it, all else as `plain` does."""
    places = [board.columns.index(column) for column in columns]
    tops = {place: board.best(place) for place in places}
    rows = []
    for row in board.rows:
        shown: list[str | Shown] = [plain(text) for text in _names(board, row)]
        behind = beaten_cells(board, row)
        for place in places:
            cell = row.cells[place]
            text = _text(cell, board.columns[place]) + (MARK if board.columns[place].key in behind else "")
            fewer = ", ".join(f"{name} {count}" for name, count in board.fewer(row, cell).items())
            text += f" ({fewer})" if fewer else ""
            text += _ends(cell, board.columns[place]) if intervals else ""
            shown.append(best(text) if cell is not None and cell.value == tops[place] else plain(text))
        rows.append(shown)
    return rows


def as_table(board: Board, *, wide: bool, width: int, intervals: bool = False) -> Table:
    """For a terminal of `width`: where that is narrow as many central columns as it holds, unless all are wanted."""
    columns: Sequence[Column] = board.columns
    central = [column for column in columns if column.central]
    room = (17 if board.of_methods else 13) + (15 if intervals else 0)
    if not wide and 24 + room * len(columns) > width and central:
        columns = _that_fit(board, central, width, intervals=intervals)
    names, (kind, *extra) = [column.heading for column in columns], _head(board)
    rows = _rows(board, columns, str, _best, intervals=intervals)
    made = table([kind, *extra, *names], rows, right=[*extra, *names], width=width)
    made.caption = _caption(board, columns)
    made.caption_justify = "left"
    return made


def _that_fit(board: Board, columns: Sequence[Column], width: int, *, intervals: bool) -> list[Column]:
    """The first of the columns, and what the board is sorted by, as far as none has to be torn; two at least."""
    head = _head(board)
    rows = [[*head, *("" for _ in columns)], *_rows(board, columns, str, str, intervals=intervals)]
    widths = [max(map(len, cells)) + 2 for cells in zip(*rows, strict=True)]
    room = width - sum(widths[: len(head)]) - 1  # for the mark of the best
    kept: list[Column] = []
    own = dict(zip(columns, widths[len(head) :], strict=True))
    by_need = sorted(columns, key=lambda column: column != board.sort)
    for column in by_need:
        room -= max(own[column] + 1, narrowest(column.heading) + 2)
        if room >= 0 or len(kept) < 2:
            kept.append(column)
    return [column for column in columns if column in kept]


def _best(text: str) -> Text:
    value, space, ends = text.partition(" [")
    return marked(f"[bold green]*{value}[/]") + literal(space + ends)


def _caption(board: Board, columns: Sequence[Column]) -> str:
    """What stands below a table of these of the board's columns."""
    first = ["* best of its column", f"sorted by {board.sort.heading}"]
    if any(column.unit == "share" for column in board.columns):
        first.insert(0, "shares in %")
    parts = [", ".join(first)]
    if any(beaten_cells(board, row) for row in board.rows):
        parts.append(MEANING)
    cells = [(row, row.cells[board.columns.index(column)]) for row in board.rows for column in columns]
    fewer = {name for row, cell in cells for name in board.fewer(row, cell)}
    if fewer:
        whose = {"n": "n: images that a value is over, where not all of the run's"}
        whose |= {"models": "models beside a value: those that have it, where not all of the row's"}
        parts += [said for name, said in whose.items() if name in fewer]
        parts.append("no mark where these differ")
    if board.order_note:
        parts.append(board.order_note)
    if board.marks_best_known:
        parts.append("best known: lowered by adversarial images from elsewhere, which the model has confirmed")
    if board.of_methods:
        parts.append("± standard deviation over training seeds")
    if board.ranked:
        parts.append(f"rank: 1 + models significantly better in {board.sort.heading} (paired, Holm, 5 %)")
    if len(columns) < len(board.columns):
        parts.append(f"{len(board.columns) - len(columns)} more columns with --wide")
    return "; ".join(parts)


def as_csv(boards: Sequence[Board], *, intervals: bool = False) -> str:
    """All boards in one table: what its board shares stands in every row, and columns that it has not are empty."""
    names: dict[str, None] = {}
    lines: list[dict[str, str]] = []
    for board in boards:
        head = [*board.shared, *_head(board)]
        further = {"sd": "spread"} if board.of_methods else {}
        further |= {"low": "ci_low", "high": "ci_high"} if intervals else {}
        for row in board.rows:
            line = dict(zip(head, map(as_cell, [*board.shared.values(), *_names(board, row)]), strict=True))
            line |= {"apart": "yes" if row.apart else ""} if board.order_note else {}
            line |= _numbers(board, row, "value")
            for suffix, part in further.items():
                line |= {f"{name} {suffix}": value for name, value in _numbers(board, row, part).items()}
            for column, cell in zip(board.columns, row.cells, strict=True):
                line |= {f"{column.label} {name}": count for name, count in board.fewer(row, cell).items()}
            names |= dict.fromkeys(line)
            lines.append(line)
    first = [[as_cell(name) for name in names]] if names else []
    return csv_text([*first, *([line.get(name, "") for name in names] for line in lines)])


def _numbers(board: Board, row: Row, part: str) -> dict[str, str]:
    """Values, their spread over seeds or the ends of their intervals, by column; empty where there is none."""
    values = [math.nan if cell is None else getattr(cell, part) for cell in row.cells]
    labels = (column.label for column in board.columns)
    return {name: "" if value != value else repr(value) for name, value in zip(labels, values, strict=True)}


def as_markdown(boards: Sequence[Board], *, intervals: bool = False) -> str:
    parts = []
    for board in boards:
        head = [*_head(board), *(markdown(column.heading) for column in board.columns)]
        rows = _rows(board, board.columns, markdown, lambda text: f"**{markdown(text)}**", intervals=intervals)
        note = [f"{markdown(board.order_note[:1].upper() + board.order_note[1:])}.", ""] if board.order_note else []
        first, *others = (f"| {' | '.join(cells)} |" for cells in (head, *rows))
        lines = [f"### {markdown(board.title)}", "", *note, first, f"|---|{'---:|' * (len(head) - 1)}", *others]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def as_latex(boards: Sequence[Board], *, intervals: bool = False) -> str:
    """One booktabs table a board."""
    return "\n".join(
        latex.board_table(
            "; ".join(filter(None, (board.title, board.order_note))), _head(board), board.columns,
            _rows(board, board.columns, latex.escaped, latex.bold, intervals=intervals),
        )
        for board in boards
    )  # fmt: skip
