"""From a matplotlib figure to an inline SVG that takes its colours from the page and tells its values."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from xml.etree import ElementTree as ET

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES_COLOURS = 12
"""How many series colours the style sheet names; later slots begin again, with another marker."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
# colours that no figure would have by chance: they stand for variables of the style sheet
_INKS = {"text": "#0a0b01", "muted": "#0a0b02", "grid": "#0a0b03", "surface": "#0a0b04"}
_VARIABLES = {code: f"var(--{name})" for name, code in _INKS.items()}
_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_SIZE = (4.9, 3.6)


@dataclass(frozen=True, slots=True)
class Point:
    """A drawn value with its interval, None where there is none, and what is said of it."""

    x: float
    y: float
    tip: str
    y_interval: tuple[float, float] | None = None
    x_interval: tuple[float, float] | None = None


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


def ink(name: str) -> str:
    """The colour that stands for the style sheet's variable `name`."""
    return _INKS[name]


def series_colour(slot: int) -> str:
    return f"#0b0c{slot % SERIES_COLOURS:02x}"


def marker(slot: int) -> str:
    return _MARKERS[slot % len(_MARKERS)]


def dashes(slot: int) -> Any:
    return _DASHES[slot // SERIES_COLOURS % len(_DASHES)]


@contextmanager
def drawing(x_label: str, y_label: str) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one pair of axes in the page's style."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    style: dict[str, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "ribench",
        "font.size": 10.5,
        "text.color": ink("text"),
        "axes.labelcolor": ink("muted"),
        "axes.edgecolor": ink("muted"),
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": ink("grid"),
        "grid.linewidth": 0.8,
        "xtick.color": ink("muted"),
        "ytick.color": ink("muted"),
        "xtick.major.size": 3,
        "ytick.major.size": 3,
        "axes.unicode_minus": True,
        "text.usetex": False,
        "text.parse_math": False,
    }
    with mpl.rc_context(cast("Any", style)):
        figure = Figure(figsize=_SIZE, layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.subplots()
        axes.patch.set_visible(False)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
        yield figure, axes


def draw_series(axes: Axes, series: Series) -> None:
    """Line, markers and intervals of one series, findable by its key afterwards."""
    points = series.points
    colour = series_colour(series.slot)
    x, y = [point.x for point in points], [point.y for point in points]
    bars: tuple[list[float], list[float]] = ([], [])  # all in one path, with gaps
    for point in points:
        for low, high in _bar_ends(point):
            for values, place in ((bars[0], 0), (bars[1], 1)):
                values += [low[place], high[place], float("nan")]
    if bars[0]:
        (bar,) = axes.plot(*bars, color=colour, linewidth=1.0, alpha=0.55, clip_on=False, solid_capstyle="butt")
        bar.set_gid(f"bar:{series.slot}")
    (line,) = axes.plot(
        x, y, color=colour, marker=marker(series.slot), markersize=5 if series.joined else 7, linewidth=1.6,
        linestyle=dashes(series.slot) if series.joined else "none", markeredgecolor=ink("surface"),
        markeredgewidth=0.8, clip_on=False, zorder=3,
    )  # fmt: skip
    line.set_gid(f"series:{series.slot}")


def _bar_ends(point: Point) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    """Both ends of the intervals of a point."""
    if point.y_interval is not None:
        yield (point.x, point.y_interval[0]), (point.x, point.y_interval[1])
    if point.x_interval is not None:
        yield (point.x_interval[0], point.y), (point.x_interval[1], point.y)


def finish(figure: Figure, figure_id: str, title: str, alt: str, series: Iterable[Series]) -> Markup:
    """The figure as an inline SVG: colours as variables, ids of its own, a title for every point.

    Args:
        figure_id: unique in the page.
        alt: the description that assistive technology reads.
        series: as drawn, so that points get their tips.

    Raises:
        ValueError: a series has not been drawn with all its points.
    """
    buffer = io.StringIO()
    metadata: Mapping[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=metadata)
    # the parser reads what matplotlib has just written, not a file from outside
    root = ET.fromstring(buffer.getvalue())  # noqa: S314
    for child in root.findall(f"{_SVG}metadata"):
        root.remove(child)
    by_slot = {one.slot: one for one in series}
    for element in root.iter(f"{_SVG}g"):
        kind, _, rest = element.get("id", "").partition(":")
        if kind in ("series", "bar", "label"):
            own = by_slot[int(rest)]
            element.set("class", kind)
            element.set("data-model" if own.is_model else "data-series", own.key)
            del element.attrib["id"]
            if kind == "series":
                _tell(element, own)
    _share_markers(root)
    _clean(root, figure_id)
    root.attrib = {
        "viewBox": root.get("viewBox", ""),
        "role": "img",
        "tabindex": "0",
        "aria-labelledby": f"{figure_id}-title {figure_id}-description",
    }
    for tag, text in (("desc", alt), ("title", title)):
        child = ET.Element(tag, {"id": f"{figure_id}-{'title' if tag == 'title' else 'description'}"})
        child.text = text
        root.insert(0, child)
    return Markup(ET.tostring(root, encoding="unicode", short_empty_elements=True))  # noqa: S704  (escaped by ET)


def _tell(element: ET.Element, series: Series) -> None:
    """Give every point its tip; matplotlib writes one `use` a marker, in the order of the points."""
    uses = list(element.iter(f"{_SVG}use"))
    if len(uses) != len(series.points):
        raise ValueError(f"{series.key} has {len(series.points)} points, {len(uses)} were drawn")
    parents = {child: parent for parent in element.iter() for child in parent}
    parents[uses[0]].set("style", uses[0].get("style", ""))  # all markers of a series look alike: said once
    for use, point in zip(uses, series.points, strict=True):
        use.attrib.pop("style", None)
        use.set("class", "point")
        ET.SubElement(use, "title").text = point.tip


def _share_markers(root: ET.Element) -> None:
    """Markers of one shape once for the figure: matplotlib writes one a series. What they look like is the group's."""
    shared = ET.Element(f"{_SVG}defs")
    known: dict[str, str] = {}
    for series in root.iter(f"{_SVG}g"):
        if series.get("class") != "series":
            continue
        for defs in series.findall(f"{_SVG}defs"):
            series.remove(defs)
            for path in defs:
                path.attrib.pop("style", None)
                name = known.setdefault(path.get("d", ""), path.get("id", ""))
                if name == path.get("id"):
                    shared.append(path)
                for use in series.iter(f"{_SVG}use"):
                    if use.get(_XLINK) == f"#{path.get('id')}":
                        use.set(_XLINK, f"#{name}")
    root.insert(0, shared)


def _clean(root: ET.Element, figure_id: str) -> None:
    """No namespaces and no style sheet (the page is HTML and has its own), short numbers, ids that no other has."""
    ids: dict[str, str] = {}
    for element in root.iter():
        for child in [child for child in element if child.tag == f"{_SVG}style"]:
            element.remove(child)
        element.tag = element.tag.removeprefix(_SVG)
        if element.tag not in ("text", "title"):
            element.text = None
        element.tail = None
        if element.tag in ("path", "clipPath") and "id" in element.attrib:
            ids[element.attrib["id"]] = f"{figure_id}-{len(ids)}"
    for element in root.iter():
        element.attrib = dict(_attributes(element, ids))


def _attributes(element: ET.Element, ids: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in element.attrib.items():
        if name == _XLINK:
            yield "href", f"#{ids[value.removeprefix('#')]}"
        elif name == "id":
            if value in ids:
                yield name, ids[value]
        elif name == "clip-path":
            yield name, re.sub(r"url\(#([^)]*)\)", lambda found: f"url(#{ids[found[1]]})", value)
        elif name == "style":
            yield name, _themed(value)
        elif name in ("d", "x", "y", "transform", "points", "width", "height"):
            yield name, _short(value)
        else:
            yield name, value


def _themed(style: str) -> str:
    for code, variable in _VARIABLES.items():
        style = style.replace(code, variable)
    style = re.sub(r"#0b0c([0-9a-f]{2})", lambda found: f"var(--series-{int(found[1], 16)})", style)
    return re.sub(r"font:\s*([\d.]+px)[^;]*", r"font-size: \1", re.sub(r"font-family:[^;]*;?\s*", "", style))


def _short(value: str) -> str:
    return re.sub(r"\d+\.\d+", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), " ".join(value.split()))


def swatch(slot: int, *, joined: bool = True) -> Markup:
    """A small drawing of a series' line and marker, for legends."""
    from matplotlib.markers import MarkerStyle

    style = MarkerStyle(marker(slot))
    path = style.get_path().transformed(style.get_transform())
    commands = []
    for vertices, code in path.iter_segments(curves=True, simplify=False):
        # a page's y axis points down
        numbers = " ".join(f"{(-6 if place % 2 else 6) * value:.2f}" for place, value in enumerate(vertices))
        commands.append({1: f"M{numbers}", 2: f"L{numbers}", 3: f"Q{numbers}", 4: f"C{numbers}"}.get(int(code), "Z"))
    pattern = "" if dashes(slot) == "-" else " ".join(str(length) for length in dashes(slot)[1])
    line = Markup('<path d="M-12 0H12" stroke-width="2" stroke-dasharray="{}"/>').format(pattern) if joined else ""
    return Markup(
        '<svg class="swatch" viewBox="-13 -5 26 10" aria-hidden="true" style="color:var(--series-{})">{}'
        '<path d="{}" stroke="none" fill="currentColor"/></svg>'
    ).format(slot % SERIES_COLOURS, line, escape("".join(commands)))
