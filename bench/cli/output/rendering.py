"""Shared rendering: consoles, numbers, tables, remarks; names and values are always printed as plain text."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from bench.runs.failures import Failures

if TYPE_CHECKING:
    from rich.console import Console
    from rich.containers import Lines
    from rich.table import Table
    from rich.text import Text

_MOST_REMARKS = 10
_LONGEST_HEADER, _SHORTEST_HEADER = 40, 5
"""Of a narrow column; a longer word is folded."""
_WHOLE = ("interval", "verdict")
"""How the columns end that are torn as little as numbers are; a verdict of several words is folded between them."""
_UNFOLDED = 10_000
"""Characters of a line where nobody's terminal sets an end: tables that programs read are not folded."""

_PART = re.compile(r"[^_/\s-]+[_/-]*|[_/-]+")
"""Of a name; a narrow column folds it where they meet."""


def output(*, unfolded: bool = False) -> Console:
    """Standard output: results. A string is printed as it is; see `marked`.

    Args:
        unfolded: tables take the room that they need; so they do where a program reads them.
    """
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return _console(stderr=False, width=_UNFOLDED if unfolded or piped else None)


def messages() -> Console:
    """Standard error: progress and remarks."""
    return _console(stderr=True)


def _console(*, stderr: bool, width: int | None = None) -> Console:
    from rich.console import Console

    class Plain(Console):
        """Obeys no markup in strings, nor characters that a terminal would obey."""

        def print(self, *objects: Any, **options: Any) -> None:
            super().print(*(literal(one) if isinstance(one, str) else one for one in objects), **options)

    return Plain(stderr=stderr, width=width, highlight=False, markup=False)


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: Sequence[str] = (), width: int | None = None
) -> Table:
    """A plain table; columns named in `right` are right-aligned. Cells are plain text; see `marked`.

    In a terminal (or a `width`) that is too narrow for it columns come nearer to each other, and text is folded;
    numbers are not.
    """
    from rich import box
    from rich.table import Table

    cells = [[_folded(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    body = [max((_least(row[place], name) for row in cells), default=0) for place, name in enumerate(columns)]
    longest = sum(max(len(name), cell) for name, cell in zip(columns, body, strict=True))
    width = width or output().width
    fits = longest + 3 * len(columns) + 1 <= width
    numbers = [*right, *(name for name in columns if name.endswith(_WHOLE))]
    widths = {} if fits or not numbers else _fixed_widths(columns, body, numbers, room=width - 2 * len(columns))
    made = Table(box=box.SIMPLE_HEAD, collapse_padding=not fits, pad_edge=fits)
    for place, name in enumerate(columns):
        # the first column names the row, and a name torn in two cannot be copied; numbers are torn still less
        wrapped = place > 0 or widths.get(place) == 0
        made.add_column(
            _folded(name), justify="right" if name in right else "left", overflow="fold", no_wrap=not wrapped,
            width=widths.get(place) or None,
        )  # fmt: skip
    for row in cells:
        made.add_row(*row)
    return made


def _fixed_widths(columns: Sequence[str], body: Sequence[int], numbers: Sequence[str], *, room: int) -> dict[int, int]:
    """The widths of the numbers' columns, and 0 for the first if it has to be folded."""
    words = [max((len(word) for word in name.split()), default=0) for name in columns]
    least = [max(longest, narrowest(name)) for longest, name in zip(body, columns, strict=True)]
    for most in range(_LONGEST_HEADER, _SHORTEST_HEADER - 1, -1):
        fixed = {
            place: max(least[place], min(words[place], most)) for place, name in enumerate(columns) if name in numbers
        }
        if sum(fixed.values()) + body[0] <= room:
            return fixed
    return {0: 0, **fixed}


def _least(cell: Text, column: str) -> int:
    """Width of a cell, that of its longest line; of a verdict that of its longest word."""
    from rich.cells import cell_len

    parts = cell.plain.split() if column == "verdict" else cell.plain.split("\n")
    return max((cell_len(part) for part in parts), default=0)


def _folded(text: str) -> Text:
    """Text as it is, whose words are folded where names have joints, if they have to be."""
    from rich.text import Text

    class Folded(Text):
        def wrap(self, console: Console, width: int, **options: Any) -> Lines:
            joints = re.sub(rf"\S{{{width + 1},}}", lambda word: _at_joints(word[0], width), self.plain)
            return Text(joints, style=self.style).wrap(console, width, **options)

    return Folded(literal(text).plain)


def narrowest(name: str) -> int:
    """How wide the longest part is that no joint divides."""
    return max(map(len, _PART.findall(name)), default=0)


def _at_joints(word: str, width: int) -> str:
    """`at_linf_005` in lines of at most so many characters, each but the last ending in a joint where one is near."""
    lines = [""]
    for part in _PART.findall(word):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def warn(lines: Iterable[str]) -> None:
    """Remarks on standard error, one a line; of many the first ten."""
    found = list(lines)
    for line in found[:_MOST_REMARKS]:
        messages().print(f"warning {line}", style="yellow", soft_wrap=True)
    if len(found) > _MOST_REMARKS:
        messages().print(f"warning and {len(found) - _MOST_REMARKS} more like these", style="yellow")


def tell_skipped(failures: Failures) -> None:
    """A line for each suite that was left out."""
    for (suite, where), reason in failures.skipped.items():
        messages().print(f"note skipped {suite} on {where}: {reason}", style="yellow", soft_wrap=True)


def tell_failures(failures: Failures, finished: int) -> None:
    """The list at the end, a line each."""
    for failure in failures.found:
        messages().print(f"failed {failure.what}: {failure.reason}", style="red", soft_wrap=True)
    if failures.found:
        messages().print(f"error: {len(failures.found)} failed, {finished} runs are done.", style="red")


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
