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


def is_share(metric: str) -> bool:
    """Whether a metric is a fraction, to be shown in %; distances and their ratios are not."""
    return not metric.split(" ")[0].endswith(("_distance", "_distance_ratio"))


def metric_value(column: str, value: float) -> str:
    """A value under a column that begins with its metric's name: in % if it is a share, else as it is."""
    return percent(value) if is_share(column) else f"{value:.3f}"


def interval(low: float, high: float) -> str:
    return f"[{100 * low:.1f}, {100 * high:.1f}]"
