"""Shared rendering: consoles, percentages, plain tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def output() -> Console:
    """Standard output: results."""
    from rich.console import Console

    return Console(highlight=False)


def messages() -> Console:
    """Standard error: progress and remarks."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> Table:
    """A plain table; the columns named in `right` are right-aligned."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD)
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def number(value: float, *, percent: bool) -> str:
    """A share in per cent, anything else with four digits."""
    return f"{100 * value:.1f}" if percent else f"{value:.4g}"


def interval(low: float, high: float) -> str:
    return f"[{100 * low:.1f}, {100 * high:.1f}]"
