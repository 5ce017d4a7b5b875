"""What a page is made of, ready to be written down by the templates: words, tables, drawings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup


@dataclass(frozen=True, slots=True)
class DataTable:
    """A plain table; also what stands in for a plot where it cannot be seen."""

    caption: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """One series of a group of plots.

    Attributes:
        key: what its elements on the page are found by; for a model, its full name.
        slot: which colour and marker it has.
        is_model: whether the page's filter applies to it.
    """

    key: str
    label: str
    slot: int
    swatch: Markup
    is_model: bool


@dataclass(frozen=True, slots=True)
class Panel:
    """One drawing.

    Attributes:
        alt: what it shows, in words.
        table: the numbers that it draws.
    """

    id: str
    title: str
    svg: Markup
    alt: str
    table: DataTable


@dataclass(frozen=True, slots=True)
class PlotGroup:
    """Drawings that share a legend."""

    id: str
    title: str
    lead: str
    legend: list[LegendEntry]
    panels: list[Panel]


@dataclass(frozen=True, slots=True)
class Names:
    """How the models of a page are called and drawn, the same everywhere.

    Attributes:
        slots: full name (`dataset/id`) -> slot.
        several_datasets: whether a short name would not do.
    """

    slots: dict[str, int]
    several_datasets: bool = field(default=False)

    def label(self, name: str) -> str:
        return name if self.several_datasets else name.partition("/")[2]


def anchor(*parts: object) -> str:
    """An id for an element, of letters, digits, `.`, `-` and `_`; different names give different ids."""
    return "".join(_plain(letter) for letter in "/".join(str(part) for part in parts))


def _plain(letter: str) -> str:
    if letter in "_/":
        return "-" if letter == "_" else "."
    return letter if letter.isascii() and letter.isalnum() else f"_{ord(letter):x}_"


def number(value: float, *, percent: bool) -> str:
    """A value as it is printed: per cent with one digit, or three digits."""
    if percent:
        return f"{100 * value:.1f}"
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"


def interval(low: float, high: float, *, percent: bool) -> str:
    if low != low or high != high:  # too few examples for one
        return ""
    return f"[{number(low, percent=percent)}, {number(high, percent=percent)}]"


def scaled(bounds: tuple[float, float] | None, scale: float) -> tuple[float, float] | None:
    """An interval in another unit."""
    return None if bounds is None else (scale * bounds[0], scale * bounds[1])
