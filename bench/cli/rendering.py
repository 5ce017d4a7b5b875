"""Shared rendering: consoles, percentages, plain tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text


def output() -> Console:
    """Standard output: results."""
    from rich.console import Console

    return Console(highlight=False)


def messages() -> Console:
    """Standard error: progress and remarks."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: Sequence[str] = ()) -> Table:
    """A plain table; columns named in `right` are right-aligned. Cells are text, whatever is in them; see `marked`."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD)
    for place, name in enumerate(columns):
        # the first column names the row, and a name torn in two cannot be copied
        made.add_column(name, justify="right" if name in right else "left", overflow="fold", no_wrap=place == 0)
    for row in rows:
        made.add_row(*(literal(cell) if isinstance(cell, str) else cell for cell in row))
    return made


def literal(text: str) -> Text:
    """Text as it is: no markup in it is obeyed, and control characters, which a terminal would obey, are shown as ?."""
    from rich.text import Text

    return Text("".join(one if one.isprintable() or one == "\n" else "?" for one in text))


def marked(text: str) -> Text:
    """Text whose markup is ours: `marked("[red]wrong[/]")`."""
    from rich.text import Text

    return Text.from_markup(text)


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
