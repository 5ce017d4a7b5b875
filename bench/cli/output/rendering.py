"""Shared rendering: consoles, percentages, plain tables; names and values are always printed as plain text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_MOST_REMARKS = 10
_LONGEST_HEADER, _SHORTEST_HEADER = 40, 5
"""Of a narrow column; a longer word is folded."""
_WHOLE = ("interval", "verdict")
"""How the columns end that are torn as little as numbers are; a verdict of several words is folded between them."""


def output() -> Console:
    """Standard output: results. A string is printed as it is; see `marked`."""
    return _console(stderr=False)


def messages() -> Console:
    """Standard error: progress and remarks."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    class Plain(Console):
        """Obeys no markup in strings, nor characters that a terminal would obey."""

        def print(self, *objects: Any, **options: Any) -> None:
            super().print(*(literal(one) if isinstance(one, str) else one for one in objects), **options)

    return Plain(stderr=stderr, highlight=False, markup=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: Sequence[str] = ()) -> Table:
    """A plain table; columns named in `right` are right-aligned. Cells are plain text; see `marked`."""
    from rich import box
    from rich.table import Table

    cells = [[literal(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    widths = _fixed_widths(columns, cells, [*right, *(name for name in columns if name.endswith(_WHOLE))])
    made = Table(box=box.SIMPLE_HEAD)
    for place, name in enumerate(columns):
        # the first column names the row, and a name torn in two cannot be copied; numbers are torn still less
        wrapped = place > 0 or widths.get(place) == 0
        made.add_column(
            literal(name), justify="right" if name in right else "left", overflow="fold", no_wrap=not wrapped,
            width=widths.get(place) or None,
        )  # fmt: skip
    for row in cells:
        made.add_row(*row)
    return made


def _fixed_widths(columns: Sequence[str], cells: Sequence[Sequence[Text]], numbers: Sequence[str]) -> dict[int, int]:
    """Where the terminal is narrow: the widths of the numbers' columns, and 0 for the first if it has to be folded."""
    body = [max((_least(row[place], name) for row in cells), default=0) for place, name in enumerate(columns)]
    width, padding = output().width, 3 * len(columns) + 1
    if (
        not numbers
        or sum(max(len(name), longest) for name, longest in zip(columns, body, strict=True)) + padding <= width
    ):
        return {}
    words = [max((len(word) for word in name.split()), default=0) for name in columns]
    for most in range(_LONGEST_HEADER, _SHORTEST_HEADER - 1, -1):
        fixed = {
            place: max(body[place], min(words[place], most)) for place, name in enumerate(columns) if name in numbers
        }
        if sum(fixed.values()) + body[0] + padding <= width:
            return fixed
    return {0: 0, **fixed}


def _least(cell: Text, column: str) -> int:
    """Width of a cell, of a verdict that of its longest word."""
    return max((len(word) for word in cell.plain.split()), default=0) if column == "verdict" else cell.cell_len


def warn(lines: Iterable[str]) -> None:
    """Remarks on standard error, one a line; of many the first ten."""
    found = list(lines)
    for line in found[:_MOST_REMARKS]:
        messages().print(f"warning {line}", style="yellow", soft_wrap=True)
    if len(found) > _MOST_REMARKS:
        messages().print(f"warning and {len(found) - _MOST_REMARKS} more like these", style="yellow")


def printable(text: str) -> str:
    """The text without characters that a terminal, an XML reader or a table would obey: ? stands for each."""
    return "".join(one if one.isprintable() else "?" for one in text)


def literal(text: str) -> Text:
    """Text as it is: no markup in it is obeyed, and control characters are shown as ?.

    GitHub takes a line of a job's output that begins with `::` for a command, and a table may begin one anywhere.
    """
    from rich.text import Text

    lines = "\n".join(printable(line) for line in text.split("\n"))
    return Text(re.sub(r"(?<=:)(?=:)|(?<=##)(?=\[)", " ", lines))


def marked(text: str) -> Text:
    """Text whose markup is ours: `marked("[red]wrong[/]")`."""
    from rich.text import Text

    return Text.from_markup(text)


def markdown(text: str) -> str:
    """Text as a cell of a Markdown table or a heading: one line, and nothing in it is obeyed."""
    return re.sub(r"([\\`*\[\]<>|&!])", r"\\\1", printable(" ".join(text.split())))


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def number(value: float, *, percent: bool) -> str:
    """A share in per cent, anything else with four digits."""
    return f"{100 * value:.1f}" if percent else f"{value:.4g}"


def interval(low: float, high: float, *, percent: bool) -> str:
    """A 95 % interval as `number` prints its ends; a dash where there are too few examples for one."""
    if low != low or high != high:
        return "-"
    return f"[{number(low, percent=percent)}, {number(high, percent=percent)}]"
