"""Figures of the studies, drawn with matplotlib, and how any figure is written; data in, files out."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from PIL import Image

from bench.core.errors import BenchError
from bench.core.files import write_atomically

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7f7f7f", "#6a3d9a")
"""Okabe and Ito's colours, told apart by colour-blind readers, then more."""
LINES = ("-", "--", ":")
"""Told apart where the colours begin again, as points are by _MARKERS."""
_MARKERS = "os^"
_DPI = 150
_METADATA: dict[str, dict[str, str | None]] = {
    "png": {"Software": None},
    "svg": dict.fromkeys(("Creator", "Date", "Format", "Type")),
    "pdf": dict.fromkeys(("CreationDate", "Creator", "Producer")),
}
"""Left out, since they would change from day to day or version to version."""
_COORDINATES = re.compile(rb' (?:d|x|y)="[^"]*"')
_IDLE = re.compile(rb' transform="rotate\(-0 [^"]*"')
"""A turn by nothing."""
FIGURE_KINDS: tuple[str, ...] = tuple(_METADATA)


def new_figure(columns: int, *, width: float = 4.0, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    """A figure of one row of axes; no global state of matplotlib is touched."""
    figure = Figure(figsize=(width * columns, height), layout="constrained")
    axes: Any = figure.subplots(1, columns, squeeze=False)
    return figure, list(axes[0])


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write `name.png` and `name.svg`, the same bytes for the same figure; raises BenchError."""
    write_atomically(folder / f"{name}.png", few_colours(figure_bytes(figure, "png")))
    write_atomically(folder / f"{name}.svg", figure_bytes(figure, "svg"))


def few_colours(png: bytes) -> bytes:
    """A picture with at most 256 colours, which is all that lines and text have: a third of the size."""
    stream = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(stream, "png", optimize=True)
    return stream.getvalue()


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """A figure as a file of `kind`, one of `FIGURE_KINDS`; the same bytes for the same figure."""
    stream = io.BytesIO()
    # text stays text, in fonts that publishers take
    settings: dict[Any, Any] = {"svg.fonttype": "none", "pdf.fonttype": 42, "font.sans-serif": ["DejaVu Sans"]}
    with mpl.rc_context(settings | {"svg.hashsalt": "ribench"}):
        figure.savefig(stream, format=kind, dpi=_DPI, metadata=_METADATA[kind])
    return _slim(stream.getvalue()) if kind == "svg" else stream.getvalue()


def _slim(svg: bytes) -> bytes:
    """The same drawing in about half the bytes: rounded, each style said once, no names that nothing refers to."""
    # finer than a hundredth of a point nobody sees
    svg = _COORDINATES.sub(lambda place: re.sub(rb"(\.[0-9]{2})[0-9]+", rb"\1", place[0]), svg)
    svg = _IDLE.sub(b"", svg)
    used = set(re.findall(rb'(?:href="|url\()#([^")]+)', svg))
    svg = re.sub(rb' id="([^"]*)"', lambda name: name[0] if name[1] in used else b"", svg)
    styles = list(dict.fromkeys(re.findall(rb' style="([^"]*)"', svg)))
    for number, style in enumerate(styles):
        svg = svg.replace(b' style="%b"' % style, b' class="s%d"' % number)
    rules = b"".join(b".s%d{%b}" % one for one in enumerate(styles))
    return re.sub(rb"\n\s*", b"\n", svg.replace(b"</style>", rules + b"</style>", 1))


def require_picture(path: Path, option: str = "output") -> str:
    """The kind of figure that the file's ending asks for; raises BenchError where it cannot be written."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FIGURE_KINDS:
        raise BenchError(f"the picture {path} must end in .png, .svg or .pdf.", option=option)
    if path.is_dir():
        raise BenchError(f"the picture {path} is a folder; name a file in it.", option=option)
    if not path.parent.is_dir():
        raise BenchError(f"there is no folder {path.parent} for the picture; make it first.", option=option)
    return kind


def roar_figure(curves: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]], title: str) -> Figure:
    """Accuracy of retrained nets against the removed share; one panel a model, one line a map."""
    figure, panels = new_figure(max(1, len(curves)))
    names = list(dict.fromkeys(name for lines in curves.values() for name in lines))
    coloured = [name for name in names if name != "random"]
    colours = {"random": "black"} | dict(zip(coloured, cycle_colours(len(coloured)), strict=True))
    lowest = min((value for lines in curves.values() for _, values in lines.values() for value in values), default=0.0)
    bottom = max(0.0, np.floor(10 * lowest) / 10)
    for (model, lines), axes in zip(curves.items(), panels, strict=False):
        for name, (removed, accuracies) in lines.items():
            line = "--" if name == "random" else ":" if name.startswith("mask_only") else "-"
            axes.plot(removed, accuracies, line, color=colours[name], marker="o", markersize=3, label=name)
        axes.set(xlabel="share of pixels removed", ylabel="accuracy after retraining", ylim=(bottom, 1), xlim=(0, 1))
        axes.set_title(f"{model}: {title}")
        axes.grid(alpha=0.3)
    _outside_legend(figure, panels[0])
    return figure


def manifold_figure(panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]]) -> Figure:
    """Densities of the distance to the manifold, relative to the clean images' range as in the paper.

    Args:
        panels: title -> kind of net -> (clean distances, adversarial ones); all share the clean images.
    """
    from scipy.stats import gaussian_kde

    figure, all_axes = new_figure(len(panels), width=4.2, height=4.2)
    for axes, (title, distances) in zip(all_axes, panels.items(), strict=True):
        clean = np.asarray(next(iter(distances.values()))[0])
        low, high = float(clean.min()), float(clean.max())
        kept = {f"adversarial, {model}": np.asarray(values[1]) for model, values in distances.items()}
        for colour, (label, values) in zip(cycle_colours(len(kept) + 1), {"clean": clean, **kept}.items(), strict=True):
            relative = (values - low) / (high - low)
            if len(relative) < 3 or float(relative.std()) == 0.0:
                continue
            grid = np.linspace(min(0.0, float(relative.min())), float(np.quantile(relative, 0.995)) * 1.1, 200)
            density = gaussian_kde(relative, bw_method=0.25)(grid)
            axes.plot(grid, density, color=colour, label=f"{label} (n={len(values)})")
        axes.set(xlabel="relative distance to the reconstruction\n(0, 1: range of clean images)", ylabel="density")
        axes.set_title(title)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), fontsize=8, frameon=False)
    return figure


@dataclass(frozen=True, slots=True)
class Spread:
    """A group of training seeds in a plot: where each stands."""

    across: list[float]
    up: list[float]


def spreads_figure(
    panels: Mapping[str, Mapping[str, Sequence[Spread]]], xlabel: str, ticks: Sequence[str], log: Collection[str]
) -> Figure:
    """One panel a metric: a line joins the means of a curve's groups, bars are the seeds' ranges.

    Args:
        panels: label of the vertical axis -> curve -> its groups.
        ticks: words at the places 0, 1, ... of the horizontal axis, where these are no numbers.
        log: `x`, `y`: the axes that are logarithmic.
    """
    figure, axes_of = new_figure(len(panels), width=6.0 if ticks else 4.0)
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    for (label, curves), axes in zip(panels.items(), axes_of, strict=True):
        for name, groups in curves.items():
            number = names.index(name)
            shift = 0.08 * (number - (len(names) - 1) / 2) if ticks else 0.0
            _spread_line(axes, [Spread([x + shift for x in one.across], one.up) for one in groups], name, number)
        axes.set(xlabel=xlabel, ylabel=label, xscale="log" if "x" in log else "linear")
        axes.set_yscale("log" if "y" in log else "linear")
        _plain_numbers(axes, log)
        if ticks:
            axes.set_xticks(range(len(ticks)), list(ticks))
        axes.grid(alpha=0.3)
    _outside_legend(figure, max(axes_of, key=lambda one: len(one.get_legend_handles_labels()[1])))
    return figure


def _plain_numbers(axes: Axes, log: Collection[str]) -> None:
    """On logarithmic axes: 0.7, not 7 times a power of ten; of many decades only what begins with 1, 2 or 5."""
    limits = {"x": (axes.xaxis, axes.get_xlim()), "y": (axes.yaxis, axes.get_ylim())}
    for axis, (low, high) in (limits[name] for name in log):
        shown = "123456789" if high < 8 * low else "125"
        for set_formatter in (axis.set_major_formatter, axis.set_minor_formatter):
            set_formatter(FuncFormatter(lambda value, _, shown=shown: f"{value:g}" if f"{value:e}"[0] in shown else ""))


def _spread_line(axes: Axes, groups: Sequence[Spread], name: str, number: int) -> None:
    again, place = divmod(number, len(COLOURS))
    colour, style, marker = COLOURS[place], LINES[again % len(LINES)], _MARKERS[again % len(_MARKERS)]
    ways = [one.across for one in groups], [one.up for one in groups]
    across, up = (np.array([np.mean(values) for values in way]) for way in ways)
    beside, above = (np.transpose([_reach(values) for values in way]) for way in ways)
    axes.errorbar(
        across, up, xerr=beside if beside.any() else None, yerr=above, color=colour, linestyle=style, linewidth=1.2,
        marker=marker, markersize=5, elinewidth=1, label=name,
    )  # fmt: skip


def _reach(values: Sequence[float]) -> tuple[float, float]:
    """How far they lie below and above their mean."""
    mean = float(np.mean(values))
    return max(0.0, mean - min(values)), max(0.0, max(values) - mean)


def cycle_colours(count: int) -> list[str]:
    """So many, from the first again where they end."""
    return [COLOURS[number % len(COLOURS)] for number in range(count)]


def _outside_legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
