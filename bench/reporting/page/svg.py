"""Plots as inline SVG that takes its colours from the page's style sheet and tells its values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

SERIES_COLOURS = 12
"""How many series colours the style sheet names; later slots begin again, with another marker."""
_DASHES = ("", "5 2", "1.5 1.5", "6 2 1.5 2")
_PLUS = ((-1, -3), (1, -3), (1, -1), (3, -1), (3, 1), (1, 1), (1, 3), (-1, 3), (-1, 1), (-3, 1), (-3, -1), (-1, -1))
_MARKERS: tuple[tuple[tuple[float, float], ...], ...] = (
    (),  # a circle
    ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    ((0, -1.1), (1.1, 1), (-1.1, 1)),
    ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    ((0, 1.1), (1.1, -1), (-1.1, -1)),
    tuple((x / 2.6, y / 2.6) for x, y in _PLUS),
    tuple(((x - y) / 3.7, (x + y) / 3.7) for x, y in _PLUS),
    ((-1.1, -1), (1.1, -1), (-1.1, 1), (1.1, 1)),
    ((-1, -1.1), (-1, 1.1), (1, -1.1), (1, 1.1)),
    ((-0.65, -1.4), (0.65, -1.4), (0.65, 1.4), (-0.65, 1.4)),
    ((-1.4, -0.65), (1.4, -0.65), (1.4, 0.65), (-1.4, 0.65)),
)
_WIDTH, _HEIGHT, _TOP, _BOTTOM, _RIGHT = 353.0, 259.0, 8.0, 38.0, 8.0
_TEXT, _CHARACTER = 10.5, 6.6
_LABEL, _LABEL_CHARACTER = 9.0, 5.6
"""Size of text, and width of a character, rather too wide, so that none is cut off or laid over another."""
_OFFSETS = ((8, 0, "start"), (-8, 0, "end"), (0, -9, "middle"), (0, 9, "middle"), (7, -8, "start"), (-7, -8, "end"),
            (7, 8, "start"), (-7, 8, "end"))  # fmt: skip
Ends = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Point:
    """A drawn value with its interval, None where there is none, and what is said of it."""

    x: float
    y: float
    tip: str
    y_interval: Ends | None = None
    x_interval: Ends | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one thing.

    Attributes:
        key: what the page finds its elements by.
        is_model: whether the page's filter applies to it.
        joined: whether a line runs through the points.
        label: written beside its single point where there is room; empty for none.
    """

    key: str
    slot: int
    points: Sequence[Point]
    is_model: bool = True
    joined: bool = True
    label: str = ""


@dataclass(frozen=True, slots=True)
class Axes:
    """What surrounds the series.

    Attributes:
        labels: of the horizontal and of the vertical axis.
        x, y: their ends; None: around what is drawn, with a margin.
        rows: names of 0, 1, 2, ... on the vertical axis, in place of numbers.
        guide: points of a dashed line behind the series.
    """

    labels: tuple[str, str]
    x: Ends | None = None
    y: Ends | None = None
    rows: Sequence[str] = ()
    guide: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True, slots=True)
class _Frame:
    """The place of the axes: numbers to pixels of the drawing."""

    left: float
    x_ends: Ends
    y_ends: Ends

    def x(self, value: float) -> float:
        low, high = self.x_ends
        return self.left + (value - low) / (high - low) * (_WIDTH - _RIGHT - self.left)

    def y(self, value: float) -> float:
        low, high = self.y_ends
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _BOTTOM - _TOP)


def plot(identity: str, title: str, alt: str, series: Sequence[Series], axes: Axes) -> Markup:
    """The series, the first on top, as an inline SVG: ids of its own, a title for every point.

    Args:
        identity: unique in the page.
        alt: the description that assistive technology reads.
    """
    points = [point for one in series for point in one.points]
    x_ends = axes.x or _ends([value for point in points for value in (point.x, *(point.x_interval or ()))])
    y_ends = axes.y or _ends([value for point in points for value in (point.y, *(point.y_interval or ()))])
    named: dict[float, str] = {float(row): name for row, name in enumerate(axes.rows)}
    y_ticks = named or {value: f"{value:.4g}" for value in _ticks(*y_ends)}
    frame = _Frame(24 + _CHARACTER * max(map(len, y_ticks.values()), default=0), x_ends, y_ends)
    shapes = {(_shape(one.slot), one.joined): _marker(one.slot, 2.5 if one.joined else 3.5) for one in series}
    names = {shape: f"{identity}-{place}" for place, shape in enumerate(shapes)}
    parts = [
        Markup('<title id="{0}-title">{1}</title><desc id="{0}-description">{2}</desc>').format(identity, title, alt),
        Markup("<defs>{}</defs>").format(Markup("").join(
            Markup('<path id="{}" d="{}"/>').format(names[shape], path) for shape, path in shapes.items()
        )),
        *_surroundings(frame, axes, y_ticks),
        *(_drawn(frame, one, names[_shape(one.slot), one.joined]) for one in reversed(series)),
        *_labels(frame, series),
    ]  # fmt: skip
    return Markup(
        '<svg viewBox="0 0 {1:g} {2:g}" role="img" tabindex="0" aria-labelledby="{0}-title {0}-description">{3}</svg>'
    ).format(identity, _WIDTH, _HEIGHT, Markup("").join(parts))


def _ends(values: Sequence[float]) -> Ends:
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.1 * (high - low) or 0.1 * abs(high) or 0.5
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """At most eight round numbers."""
    power = 10.0 ** math.floor(math.log10((high - low) / 7))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor * 7 >= high - low)
    return [step * count for count in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _surroundings(frame: _Frame, axes: Axes, y_ticks: dict[float, str]) -> Iterator[Markup]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    x_ticks = {value: f"{value:.4g}" for value in _ticks(*frame.x_ends)}
    grid = [f"M{_short(frame.x(value))} {_TOP}V{bottom}" for value in x_ticks]
    grid += [f"M{_short(frame.left)} {_short(frame.y(value))}H{right}" for value in y_ticks]
    lines = {"grid": grid, "muted": [f"M{_short(frame.left)} {_TOP}V{bottom}H{right}"]}
    if axes.x is None and axes.rows and frame.x_ends[0] < 0 < frame.x_ends[1]:
        lines["muted"].append(f"M{_short(frame.x(0))} {_TOP}V{bottom}")
    for colour, paths in lines.items():
        yield Markup('<path d="{}" style="fill:none;stroke:var(--{});stroke-width:.8"/>').format("".join(paths), colour)
    if axes.guide:
        line = _path(frame, axes.guide)
        yield Markup('<path d="{}" style="fill:none;stroke:var(--muted);stroke-dasharray:5 4"/>').format(line)
    for value, text in x_ticks.items():
        yield _text(frame.x(value), bottom + 13, text, "middle")
    for value, text in y_ticks.items():
        yield _text(frame.left - 5, frame.y(value) + 3.5, text, "end")
    yield _text((frame.left + right) / 2, _HEIGHT - 6, axes.labels[0], "middle")
    turned = Markup('<g transform="translate(11 {:g}) rotate(-90)">{}</g>')
    yield turned.format((_TOP + bottom) / 2, _text(0, 0, axes.labels[1], "middle"))


def _drawn(frame: _Frame, series: Series, marker: str) -> Markup:
    """Line, markers and intervals of one series, findable by its key afterwards."""
    colour = series.slot % SERIES_COLOURS
    bars = []
    for point in series.points:
        x, y = _short(frame.x(point.x)), _short(frame.y(point.y))
        if point.y_interval is not None:
            low, high = map(frame.y, point.y_interval)
            bars.append(f"M{x} {_short(low)}V{_short(high)}")
        if point.x_interval is not None:
            low, high = map(frame.x, point.x_interval)
            bars.append(f"M{_short(low)} {y}H{_short(high)}")
    bar = Markup('<path d="{}" style="fill:none;stroke:var(--series-{});stroke-opacity:.55"/>').format(
        "".join(bars), colour
    )
    line = Markup(
        '<path d="{}" style="fill:none;stroke:var(--series-{});stroke-width:1.6;stroke-dasharray:{}"/>'
    ).format(_path(frame, [(point.x, point.y) for point in series.points]), colour, _dashes(series.slot) or "none")
    uses = Markup("").join(
        Markup('<use class="point" href="#{}" x="{}" y="{}"><title>{}</title></use>').format(
            marker, _short(frame.x(point.x)), _short(frame.y(point.y)), point.tip
        )
        for point in series.points
    )
    points = Markup('<g style="fill:var(--series-{});stroke:var(--surface);stroke-width:.8">{}</g>').format(
        colour, uses
    )
    whole = _group("series", series, line + points if series.joined else points)
    return (_group("bar", series, bar) if bars else Markup()) + whole


def _labels(frame: _Frame, series: Sequence[Series]) -> Iterator[Markup]:
    """Names beside points, each where it hides nothing; a name without such a place is left to the legend."""
    places = [(frame.x(one.points[0].x), frame.y(one.points[0].y)) for one in series if one.label]
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in places]
    for one, (x, y) in zip([one for one in series if one.label], places, strict=True):
        width = _LABEL_CHARACTER * len(one.label)
        for right, down, side in _OFFSETS:
            begin = x + right - width * {"start": 0.0, "middle": 0.5, "end": 1.0}[side]
            box = (begin, y + down - 5, begin + width, y + down + 5)
            free = not any(
                box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in taken
            )
            if free and frame.left < box[0] and box[2] < _WIDTH and box[1] > 0 and box[3] < _HEIGHT - _BOTTOM:
                taken.append(box)
                yield _group("label", one, _text(x + right, y + down + 3, one.label, side, size=_LABEL, colour="text"))
                break


def _group(kind: str, series: Series, content: Markup) -> Markup:
    of = "model" if series.is_model else "series"
    return Markup('<g class="{}" data-{}="{}">{}</g>').format(kind, of, series.key, content)


def _text(x: float, y: float, text: str, side: str, size: float = _TEXT, colour: str = "muted") -> Markup:
    return Markup('<text x="{}" y="{}" style="fill:var(--{});font-size:{}px;text-anchor:{}">{}</text>').format(
        _short(x), _short(y), colour, size, side, text
    )


def _path(frame: _Frame, points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_short(frame.x(x))} {_short(frame.y(y))}" for x, y in points) if points else ""


def _shape(slot: int) -> int:
    """Which marker: 132 slots have a colour and marker each that no other of them has."""
    return (slot + slot // SERIES_COLOURS) % len(_MARKERS)


def _marker(slot: int, radius: float) -> str:
    corners = _MARKERS[_shape(slot)]
    if not corners:
        half = f"a{radius:g} {radius:g} 0 1 0 "
        return f"M-{radius:g} 0{half}{2 * radius:g} 0{half}-{2 * radius:g} 0Z"
    return "M" + "L".join(f"{_short(radius * x)} {_short(radius * y)}" for x, y in corners) + "Z"


def _dashes(slot: int) -> str:
    return _DASHES[slot // SERIES_COLOURS % len(_DASHES)]


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def swatch(slot: int, *, joined: bool = True) -> Markup:
    """A small drawing of a series' line and marker, for legends."""
    line = Markup('<path d="M-12 0H12" stroke-width="2" stroke-dasharray="{}"/>').format(_dashes(slot))
    return Markup(
        '<svg class="swatch" viewBox="-13 -5 26 10" aria-hidden="true" style="color:var(--series-{})">{}'
        '<path d="{}" stroke="none" fill="currentColor"/></svg>'
    ).format(slot % SERIES_COLOURS, line if joined else "", _marker(slot, 4))
