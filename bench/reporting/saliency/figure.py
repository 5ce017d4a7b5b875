"""Drawing a saliency panel: rows in, a matplotlib figure out.

Places are worked out in inches, so that nothing overlaps however many rows and methods there are, and the same rows
give the same picture.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench.attributions.manipulations import RandomSign
from bench.core.threat import NORM_LABELS, radius_text
from bench.reporting.saliency.rows import TOP_SHARE, MapPair, PanelRow, PanelSettings, Scale

SIGNED_COLOURS, POSITIVE_COLOURS = "RdBu_r", "viridis"
"""ColorBrewer's diverging map with a neutral middle, and a sequential map with even steps of perceived lightness."""

_CELL, _GAP, _BLOCK_GAP, _MARGIN = 1.5, 0.14, 0.3, 0.2
_LINE, _TITLE, _BELOW, _ROW_GAP, _NOTE_LINE = 0.165, 0.2, 0.42, 0.16, 0.14
_HEADING_SIZE, _TITLE_SIZE, _TEXT_SIZE, _TICK_SIZE = 9.0, 8.5, 8.5, 7.0
_BESIDE = 6
"""With more pictures in a half of a row, the attacked half stands below the clean one, or no screen could show it."""
_CHARACTER, _BOLD = 0.0084, 1.15
"""Width of a character of the default font, inches a point of size, rather too wide, so that no line is too long; and
how much wider a bold one is."""
_Heading = tuple[list[str], list[str]]
"""Lines above one half of a row, the bold ones and the plain ones."""


def draw_panel(rows: Sequence[PanelRow], settings: PanelSettings) -> Figure:
    """A row is the image, its maps, the attacked image and the maps there; below, a note on how to read them.

    No global state of matplotlib is touched.
    """
    columns = 1 + len(settings.methods)
    half = columns * _CELL + (columns - 1) * _GAP
    beside = columns <= _BESIDE
    width = 2 * _MARGIN + (2 * half + _BLOCK_GAP if beside else half)
    headings = [_headings(row, settings, half) for row in rows]
    note = _wrapped(_note(settings), width - 2 * _MARGIN, _TEXT_SIZE)
    heights = [_half_height(row, text) for row, text in zip(rows, headings, strict=True)]
    height = 2 * _MARGIN + (1 if beside else 2) * sum(heights) + _NOTE_LINE * len(note)
    page = _Page(Figure(figsize=(width, height)), width, height)
    top = _MARGIN
    for row, texts, taken in zip(rows, headings, heights, strict=True):
        second = (_MARGIN + half + _BLOCK_GAP, top) if beside else (_MARGIN, top + taken)
        _draw_row(page, row, texts, ((_MARGIN, top), second))
        top += taken if beside else 2 * taken
    page.text(_MARGIN, top, "\n".join(note), _TEXT_SIZE, color="0.25")
    return page.figure


@dataclass(frozen=True, slots=True)
class _Page:
    """A figure measured in inches from its upper left corner."""

    figure: Figure
    width: float
    height: float

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        box = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box)

    def text(self, left: float, top: float, text: str, size: float, **style: Any) -> None:
        self.figure.text(
            left / self.width, 1 - top / self.height, text, fontsize=size, va="top", linespacing=1.15,
            parse_math=False, **style,
        )  # fmt: skip


def _draw_row(page: _Page, row: PanelRow, headings: Sequence[_Heading], places: Sequence[tuple[float, float]]) -> None:
    """Both halves of a row, each from its own upper left corner: what is clean, and what is attacked."""
    tall, lines = _picture_height(row), max(len(bold) + len(plain) for bold, plain in headings)
    titles = ("image", "attacked image" if row.distance > 0 else "the clean image")
    halves = zip(places, headings, titles, (row.image, row.attacked), strict=True)
    for (left, top), (bold, plain), title, pixels in halves:
        page.text(left, top, "\n".join(bold), _HEADING_SIZE, weight="bold")
        page.text(left, top + _LINE * len(bold), "\n".join(plain), _HEADING_SIZE)
        _draw_image(_picture(page.axes(left, top + _LINE * lines + _TITLE, _CELL, tall), title), pixels)
    corners = [(left, top + _LINE * lines + _TITLE) for left, top in places]
    for column, pair in enumerate(row.maps, start=1):
        (left, top), (after_left, after_top) = [(left + column * (_CELL + _GAP), top) for left, top in corners]
        first = _draw_map(_picture(page.axes(left, top, _CELL, tall), pair.method), pair, pair.before)
        _draw_map(_picture(page.axes(after_left, after_top, _CELL, tall), pair.method), pair, pair.after)
        scale = pair.scale
        if scale.empty:
            page.text(left + _CELL / 2, top + tall + 0.06, "all zero", _TEXT_SIZE, ha="center")
        else:
            bar = page.axes(left + 0.1 * _CELL, top + tall + 0.07, 0.8 * _CELL, 0.08)
            _draw_scale(page.figure, first, bar, scale)
        middle = after_left + _CELL / 2
        page.text(middle, after_top + tall + 0.06, similarity_text(pair), _TEXT_SIZE, ha="center")


def _picture(axes: Axes, title: str) -> Axes:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(linewidth=0.5, color="0.6")
    # a long name is written small, or it would run into its neighbour's
    axes.set_title(title, fontsize=min(_TITLE_SIZE, (_CELL + _GAP) / (_CHARACTER * len(title))), pad=3)
    return axes


def _draw_image(axes: Axes, pixels: NDArray[np.float32]) -> None:
    if len(pixels) == 3:
        axes.imshow(pixels.transpose(1, 2, 0), interpolation=_interpolation(pixels[0]))
    else:  # one channel, or a number of channels that no screen has
        axes.imshow(pixels.mean(0), cmap="gray", vmin=0.0, vmax=1.0, interpolation=_interpolation(pixels[0]))


def _draw_map(axes: Axes, pair: MapPair, values: NDArray[np.float64]) -> Any:
    scale = pair.scale
    colours = SIGNED_COLOURS if pair.signed else POSITIVE_COLOURS
    return axes.imshow(values, cmap=colours, vmin=scale.low, vmax=scale.high, interpolation=_interpolation(values))


def _interpolation(values: NDArray[Any]) -> str:
    """Pixels stay squares where they are enlarged; larger pictures are averaged down."""
    return "nearest" if max(values.shape) <= 128 else "antialiased"


def _draw_scale(figure: Figure, drawn: Any, axes: Axes, scale: Scale) -> None:
    ends = "neither" if not scale.clipped else "both" if scale.low < 0 else "max"
    bar = figure.colorbar(drawn, cax=axes, orientation="horizontal", extend=ends)
    bar.outline.set_linewidth(0.4)
    ticks = sorted({scale.low, 0.0, scale.high})
    bar.set_ticks(ticks, labels=[f"{value:.2g}" for value in ticks])
    axes.tick_params(labelsize=_TICK_SIZE, length=2, pad=1, width=0.4)


def similarity_text(pair: MapPair) -> str:
    """What stands under an attacked map."""
    cosine, top = pair.similarities["cosine"], pair.similarities["top_k"]
    lines = f"cosine {cosine:.2f}\ntop-k {top:.2f}"
    empty = [name for name, values in (("before", pair.before), ("after", pair.after)) if not values.any()]
    return lines + (f"\nzero {' and '.join(empty)}" if empty else "")


def outcome_text(row: PanelRow) -> str:
    """What became of the prediction."""
    if not row.kept:
        return "no perturbed image kept the prediction, so the clean image stands"
    if row.distance == 0.0:
        return "nothing was stronger than the clean image, so it stands"
    return f"predicted {row.after}: prediction {'kept' if row.after == row.before else 'changed'}"


def _headings(row: PanelRow, settings: PanelSettings, width: float) -> list[_Heading]:
    mark = "" if row.before == row.truth else " (wrong)"
    left = (f"{row.model}, image {row.example_id}", f"label {row.truth} → predicted {row.before}{mark}")
    ball = f"{NORM_LABELS['linf']} {radius_text(settings.eps)}"
    aim = "" if isinstance(settings.attack, RandomSign) else f" on {settings.attacked_method.name}"
    right = (f"after {settings.attack.kind}{aim}, {ball}", outcome_text(row))
    return [
        (_wrapped(bold, width / _BOLD, _HEADING_SIZE), _wrapped(plain, width, _HEADING_SIZE))
        for bold, plain in (left, right)
    ]


def _wrapped(text: str, width: float, size: float) -> list[str]:
    shown = "".join(one if one.isprintable() else "?" for one in text)
    return textwrap.wrap(shown, max(10, int(width / (_CHARACTER * size)))) or [""]


def _picture_height(row: PanelRow) -> float:
    """Inches; images far from square are shown in a picture of 1:2 or 2:1 with an empty margin."""
    height, width = row.image.shape[1:]
    return _CELL * float(np.clip(height / width, 0.5, 2.0))


def _half_height(row: PanelRow, headings: Sequence[_Heading]) -> float:
    zero = any(not values.any() for pair in row.maps for values in (pair.before, pair.after))
    lines = max(len(bold) + len(plain) for bold, plain in headings)
    return _LINE * lines + _TITLE + _picture_height(row) + _BELOW + (_LINE if zero else 0.0) + _ROW_GAP


def _note(settings: PanelSettings) -> str:
    attacked = settings.attacked_method.name
    others = [method.name for method in settings.methods if method.name != attacked]
    aim = f"The attack ({settings.attack.kind}, {settings.attack.steps} steps) aims at the {attacked} map"
    if isinstance(settings.attack, RandomSign):
        aim = "Nothing was optimised: the attacked image is the clean one plus random signs times the radius"
    elif others:
        aim += f"; {', '.join(others)}: maps of the same image"
    return (
        "Maps explain the label's logit, channels added up with their signs. Both maps of a method in a row share the "
        "scale under the first one, symmetric around zero for signed maps, with full colour at the 99th percentile of "
        f"magnitudes. Under an attacked map: how alike the two heat maps (absolute values) are, by cosine and by the "
        f"share of the {TOP_SHARE:.0%} largest pixels that stay (top-k); 1 is unchanged. {aim}. Attacked images were "
        f"verified to lie in the {NORM_LABELS['linf']} ball and in [0, 1]. Seed {settings.seed}."
    )
