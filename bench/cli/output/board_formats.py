"""Boards as text: table, CSV, Markdown, LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.table import Table

from bench.cli.output.rendering import markdown, marked, percent, printable, table
from bench.leaderboard.boards import Board, Cell, Column, Row
from bench.leaderboard.controls import MARK, MEANING, beaten
from bench.leaderboard.metrics import MetricKey
from bench.leaderboard.table import as_cell

Shown = TypeVar("Shown")
_LATEX_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    character: f"\\{character}" for character in "&%$#_{}"
}


def _head(board: Board) -> list[str]:
    """The columns before the metrics."""
    kind = "method" if board.of_methods else "model"
    known = ["best known"] if board.marks_best_known else []
    return [kind, *known, *(["rank"] if board.ranked else []), *(["models"] if board.of_methods else [])]


def _names(board: Board, row: Row) -> list[str]:
    """A row's cells before the metrics."""
    rank = [str(row.rank)] if board.ranked else []
    known = [row.best_known] if board.marks_best_known else []
    return [row.name, *known, *rank, *([str(row.models)] if board.of_methods else [])]


def _text(cell: Cell | None, column: Column) -> str:
    """A value as people read it: per cent for shares, with the spread over seeds where rows are methods."""
    if cell is None:
        return "-"
    shown = percent if column.unit == "share" else _plain
    return shown(cell.value) + (f" ± {shown(cell.spread)}" if cell.spread == cell.spread else "")


def _plain(value: float) -> str:
    return f"{value:.3g}"


def _rows(
    board: Board, columns: Sequence[Column], plain: Callable[[str], str], best: Callable[[str], Shown]
) -> list[list[str | Shown]]:
    """Every row, the best of each column as `best` writes it, all else as `plain` does."""
    places = [board.columns.index(column) for column in columns]
    tops = {place: board.best(place) for place in places}
    rows = []
    for row in board.rows:
        shown: list[str | Shown] = [plain(text) for text in _names(board, row)]
        behind = _beaten(board, row)
        for place in places:
            cell = row.cells[place]
            text = _text(cell, board.columns[place]) + (MARK if board.columns[place].key in behind else "")
            shown.append(best(text) if cell is not None and cell.value == tops[place] else plain(text))
        rows.append(shown)
    return rows


def _beaten(board: Board, row: Row) -> dict[MetricKey, str]:
    """What of a row a control equals or beats."""
    pairs = zip(board.columns, row.cells, strict=True)
    return beaten((column.key, column.direction, cell.value) for column, cell in pairs if cell is not None)


def as_table(board: Board, *, wide: bool, width: int) -> Table:
    """For a terminal of `width`: where that is narrow the central columns, unless all are wanted."""
    columns: Sequence[Column] = board.columns
    central = [column for column in columns if column.central]
    room = 17 if board.of_methods else 13
    if not wide and 24 + room * len(columns) > width and central:
        columns = central
    names, (kind, *extra) = [column.label for column in columns], _head(board)
    rows = _rows(board, columns, str, lambda text: marked(f"[bold green]*{text}[/]"))
    made = table([kind, *extra, *names], rows, right=[*extra, *names])
    made.caption = _caption(board, len(board.columns) - len(columns))
    made.caption_justify = "left"
    return made


def _caption(board: Board, hidden: int) -> str:
    first = ["* best of its column", f"sorted by {board.sort.label}"]
    if any(column.unit == "share" for column in board.columns):
        first.insert(0, "shares in %")
    parts = [", ".join(first)]
    if any(_beaten(board, row) for row in board.rows):
        parts.append(MEANING)
    if board.marks_best_known:
        parts.append("best known: lowered by adversarial images from elsewhere, which the model has confirmed")
    if board.of_methods:
        parts.append("± standard deviation over training seeds")
    if board.ranked:
        parts.append(f"rank: 1 + models significantly better in {board.sort.label} (paired, Holm, 5 %)")
    if hidden:
        parts.append(f"{hidden} more columns with --wide")
    return "; ".join(parts)


def as_csv(boards: Sequence[Board]) -> str:
    """All boards in one table: what its board shares stands in every row, and columns that it has not are empty."""
    names: dict[str, None] = {}
    lines: list[dict[str, str]] = []
    for board in boards:
        head = [*board.shared, *_head(board)]
        for row in board.rows:
            line = dict(zip(head, map(as_cell, [*board.shared.values(), *_names(board, row)]), strict=True))
            line |= {name: "" if value is None else repr(value) for name, value in _numbers(board, row).items()}
            if board.of_methods:
                spread = _numbers(board, row, spread=True)
                line |= {f"{name} sd": "" if value is None else repr(value) for name, value in spread.items()}
            names |= dict.fromkeys(line)
            lines.append(line)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([[as_cell(name) for name in names]] if names else [])
    writer.writerows([line.get(name, "") for name in names] for line in lines)
    return stream.getvalue()


def _numbers(board: Board, row: Row, *, spread: bool = False) -> dict[str, float | None]:
    """Values, or their spread over seeds, by column; None where there is none."""
    values = [None if cell is None else cell.spread if spread else cell.value for cell in row.cells]
    labels = (column.label for column in board.columns)
    return {
        name: None if value is None or value != value else value for name, value in zip(labels, values, strict=True)
    }


def as_markdown(boards: Sequence[Board]) -> str:
    parts = []
    for board in boards:
        head = [*_head(board), *(markdown(column.label) for column in board.columns)]
        rows = _rows(board, board.columns, markdown, lambda text: f"**{markdown(text)}**")
        lines = [f"### {markdown(board.title)}", "", f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
        parts.append("\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n")
    return "\n".join(parts)


def as_latex(boards: Sequence[Board]) -> str:
    """One booktabs table a board."""
    parts = []
    for board in boards:
        head = [*_head(board), *(_latex(column.label) for column in board.columns)]
        rows = _rows(board, board.columns, _latex, lambda text: f"\\textbf{{{_latex(text)}}}")
        lines = [
            f"% {printable(board.title)}",
            f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
            "\\toprule",
            f"{' & '.join(head)} \\\\",
            "\\midrule",
            *(f"{' & '.join(row)} \\\\" for row in rows),
            "\\bottomrule",
            "\\end{tabular}",
        ]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _latex(text: str) -> str:
    escaped = re.sub(r"[\\~^&%$#_{}]", lambda found: _LATEX_SPECIAL[found[0]], printable(text))
    return escaped.replace("±", "$\\pm$").replace(MARK, "$^\\dagger$")
