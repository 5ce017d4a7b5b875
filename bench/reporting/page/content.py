"""What a page is made of, ready to be written down by the templates: words, tables, drawings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bench.leaderboard.labels import near_one, small_number
from bench.reporting.page.svg import Axes, Series, plot, swatch

_LARGEST_DRAWN = 1e12


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
        joined: whether a line runs through its points.
        is_model: whether the page's filter applies to it.
    """

    key: str
    label: str
    slot: int
    joined: bool = True
    is_model: bool = True

    @property
    def swatch(self) -> Markup:
        return swatch(self.slot, joined=self.joined)


@dataclass(frozen=True, slots=True)
class Panel:
    """One drawing, and the numbers that it draws."""

    title: str
    svg: Markup
    table: DataTable


@dataclass(frozen=True, slots=True)
class PlotGroup:
    """Drawings that share a legend.

    Attributes:
        detail: what they are of, beside the title.
        first: keys of the series that are shown at first, where all are too many to be told apart; empty for all.
    """

    id: str
    title: str
    detail: str
    lead: str
    legend: list[LegendEntry]
    panels: list[Panel]
    first: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Names:
    """How the models of a page are called and drawn, the same everywhere.

    Attributes:
        slots: full name (`dataset/id`) -> slot.
        several_datasets: whether a short name would not do.
    """

    slots: dict[str, int]
    several_datasets: bool = False

    def label(self, name: str) -> str:
        return name if self.several_datasets else self.short(name)

    @staticmethod
    def short(name: str) -> str:
        """Within a table or a plot, which are of one data set."""
        return name.partition("/")[2]


def anchor(*parts: object) -> str:
    """An id for an element, of letters, digits, `.`, `-` and `_`; different names give different ids."""
    return "".join(_plain(letter) for letter in "/".join(str(part) for part in parts))


def _plain(letter: str) -> str:
    if letter in "_/":
        return "-" if letter == "_" else "."
    return letter if letter.isascii() and letter.isalnum() else f"_{ord(letter):x}_"


@dataclass(frozen=True, slots=True)
class Number:
    """A value with its interval, NaN where there is none, as the page prints and draws it: shares in per cent.

    Attributes:
        from_one: whether it is what a value near 1 lacks to it, so that less is better.
        beaten_by: the control that equals or beats it, empty where none does.
        n: how many images it is over, empty where all of the run's.
        spread: standard deviation over the models that it is the mean of, NaN where it is one model's.
        apart: whether it is held against no other of its column, being over another number of images than most.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    percent: bool = False
    best: bool = False
    beaten_by: str = ""
    from_one: bool = False
    n: str = ""
    spread: float = math.nan
    apart: bool = False

    @property
    def text(self) -> str:
        return self._text(self.value) + ("" if math.isnan(self.spread) else f" ± {self._text(self.spread)}")

    @property
    def over(self) -> str:
        return f"(n {self.n})" if self.n else ""

    @property
    def interval(self) -> str:
        """Empty where there are too few examples for one."""
        return "" if self.bounds is None else f"[{self._text(self.low)}, {self._text(self.high)}]"

    @property
    def said(self) -> str:
        """With the number of images that it is over, if not all, and its interval."""
        return " ".join(filter(None, (self.text, self.over, self.interval)))

    @property
    def said_with_unit(self) -> str:
        return " ".join(filter(None, (f"{self.text}{' %' if self.percent else ''}", self.over, self.interval)))

    @property
    def bounds(self) -> tuple[float, float] | None:
        return None if math.isnan(self.low) or math.isnan(self.high) else (self.low, self.high)

    @property
    def drawn(self) -> float:
        """Its place on an axis."""
        return 100 * self.value if self.percent else self.value

    @property
    def bar(self) -> tuple[float, float] | None:
        """The places of its interval's ends."""
        scale = 100 if self.percent else 1
        return None if self.bounds is None else (scale * self.low, scale * self.high)

    @property
    def drawable(self) -> bool:
        """Whether a plot has a place for it: not for what is infinite, nor for what no suite of ours measures."""
        return all(abs(part) < _LARGEST_DRAWN for part in (self.value, *(self.bounds or ())))

    def _text(self, value: float) -> str:
        if self.percent:
            return f"{100 * value:.1f}"
        if self.from_one:
            return small_number(value)
        return near_one(value) or f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"


def said(number: Number | None) -> str:
    """As the table beside a plot has it."""
    return "not measured" if number is None else number.said


def draw_panel(
    identity: str, heading: str, *, alt: str, series: Sequence[Series], axes: Axes, table: DataTable, title: str = ""
) -> Panel:
    """A drawing of these series; `title` where the heading does not say it all."""
    alt = f"{alt} The table below the plot has all numbers."
    return Panel(heading, plot(identity, title or heading, alt, series, axes=axes), table)
