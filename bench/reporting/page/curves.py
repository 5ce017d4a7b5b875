"""Robustness curves: accuracy against radius, one drawing for each norm."""

from __future__ import annotations

from collections.abc import Sequence

from bench.core.threat import NORM_LABELS, radius_text
from bench.reporting.page.boards import BoardTable, Row
from bench.reporting.page.content import DataTable, LegendEntry, Panel, PlotGroup, draw_panel, said
from bench.reporting.page.svg import Axes, Point, Series

_LEAST_RADII, _READABLE = 2, 8


def robustness_curves(table: BoardTable) -> PlotGroup | None:
    """One panel for each norm that has several radii; None where no norm has."""
    panels = [panel for norm in NORM_LABELS if (panel := _panel(table, norm)) is not None]
    if not panels:
        return None
    lead = (
        "The share of all images that are classified right and for which no adversarial example was found within the "
        "radius; at radius 0 the clean accuracy. Bars are 95 % intervals. Pixels lie in [0, 1]."
    )
    legend = [LegendEntry(row.model, row.label, row.slot) for row in table.rows]
    return PlotGroup(
        f"{table.id}-curves", table.title, detail=table.detail, lead=lead, legend=legend, panels=panels,
        first=_first(table.rows),
    )  # fmt: skip


def _first(rows: Sequence[Row]) -> list[str]:
    """The best model of each method; where these can't be told apart, as many as can, from the best to the last."""
    if len(rows) <= _READABLE:
        return []
    best = {row.method: row.model for row in reversed(rows)}
    shown = [row.model for row in rows if best[row.method] == row.model]
    if len(shown) <= _READABLE:
        return shown
    return [shown[round(place * (len(shown) - 1) / (_READABLE - 1))] for place in range(_READABLE)]


def _panel(table: BoardTable, norm: str) -> Panel | None:
    keys = [column.key for column in table.columns if column.key.metric == "robust_accuracy"]
    radii = sorted({key.eps for key in keys if key.norm == norm and key.eps is not None})
    if len(radii) < _LEAST_RADII:
        return None
    found = {0.0: table.column("clean_accuracy")} | {eps: table.column("robust_accuracy", norm, eps) for eps in radii}
    places = {eps: place for eps, place in found.items() if place is not None}
    label = NORM_LABELS[norm]
    series = [_series(row, places, label) for row in table.rows]
    title = f"Robust accuracy in {label}"
    headers = ["model", *(radius_text(eps) for eps in places)]
    rows = [[row.label, *(said(row.cells[place]) for place in places.values())] for row in table.rows]
    return draw_panel(
        f"{table.id}-curve-{norm}", title, alt=_describe(table, label, {eps: places[eps] for eps in radii}),
        series=[one for one in series if one.points],
        axes=Axes((f"{label} radius", "accuracy, %"), x=(0, radii[-1] * 1.02), y=(0, 100)),
        table=DataTable(f"{title}, %, with 95 % interval, by radius ({table.detail})", headers, rows),
    )  # fmt: skip


def _series(row: Row, places: dict[float, int], label: str) -> Series:
    points = []
    for eps, place in places.items():
        number = row.cells[place]
        if number is not None and number.drawable:
            where = f"{label} {radius_text(eps)}" if eps else "clean"
            points.append(Point(eps, number.drawn, f"{row.label}, {where}: {number.said_with_unit}", number.bar))
    return Series(row.model, row.slot, points)


def _describe(table: BoardTable, label: str, places: dict[float, int]) -> str:
    eps = list(places)[len(places) // 2]
    found = [(row.label, cell) for row in table.rows if (cell := row.cells[places[eps]]) is not None]
    found.sort(key=lambda pair: -pair[1].value)
    radii = ", ".join(radius_text(radius) for radius in places)
    text = f"Line plot of accuracy against {label} radius ({radii}) for {len(table.rows)} models."
    if len(found) > 1:
        (first, best), (last, least) = found[0], found[-1]
        at = radius_text(eps)
        text += f" At {at} the highest is {first} with {best.text} %, the lowest {last} with {least.text} %."
    return text
