"""Robustness curves: accuracy against radius, one drawing for each norm."""

from __future__ import annotations

from bench.core.threat import NORM_LABELS
from bench.reporting.page.boards import BoardTable, Row, said
from bench.reporting.page.content import DataTable, LegendEntry, Panel, PlotGroup, scaled
from bench.reporting.page.svg import Point, Series, draw_series, drawing, finish, swatch

_LEAST_RADII = 2


def robustness_curves(table: BoardTable) -> PlotGroup | None:
    """One panel for each norm that has several radii; None where no norm has."""
    panels = [panel for norm in NORM_LABELS if (panel := _panel(table, norm)) is not None]
    if not panels:
        return None
    lead = (
        "The share of all images that are classified right and for which no adversarial example was found within the "
        "radius; at radius 0 the clean accuracy. Bars are 95 % intervals. Pixels lie in [0, 1]."
    )
    legend = [LegendEntry(row.model, row.label, row.slot, swatch(row.slot), is_model=True) for row in table.rows]
    return PlotGroup(f"{table.id}-curves", f"{table.title}: {table.detail}", lead, legend, panels)


def _panel(table: BoardTable, norm: str) -> Panel | None:
    radii = sorted({
        column.key.eps
        for column in table.columns
        if column.key.metric == "robust_accuracy" and column.key.norm == norm and column.key.eps is not None
    })  # fmt: skip
    positions = [
        (eps, position) for eps in radii if (position := table.column("robust_accuracy", norm, eps)) is not None
    ]
    if len(positions) < _LEAST_RADII:
        return None
    clean = table.column("clean_accuracy")
    places = ([(0.0, clean)] if clean is not None else []) + positions
    label = NORM_LABELS[norm]
    series = [_series(row, places, label) for row in table.rows]
    series = [one for one in series if one.points]
    figure_id = f"{table.id}-curve-{norm}"
    title = f"Robust accuracy in {label}"
    alt = _describe(table, label, positions)
    with drawing(f"{label} radius", "accuracy, %") as (figure, axes):
        for one in reversed(series):
            draw_series(axes, one)
        axes.set_ylim(0, 100)
        axes.set_xlim(0, radii[-1] * 1.02)
        svg = finish(figure, figure_id, title, alt, series)
    headers = ["model", *(f"{eps:.4g}" for eps, _ in places)]
    rows = [[row.label, *(said(row.cells[position]) for _, position in places)] for row in table.rows]
    caption = f"{title}, %, with 95 % interval, by radius ({table.detail})"
    return Panel(figure_id, title, svg, alt, DataTable(caption, headers, rows))


def _series(row: Row, places: list[tuple[float, int]], label: str) -> Series:
    points = []
    for eps, position in places:
        cell = row.cells[position]
        if cell is None or not cell.drawable:
            continue
        where = f"{label} {eps:.4g}" if eps else "clean"
        tip = f"{row.label}, {where}: {cell.text} % {cell.interval}"
        points.append(Point(eps, 100 * cell.value, tip, scaled(cell.bounds, 100)))
    return Series(row.model, row.slot, points)


def _describe(table: BoardTable, label: str, places: list[tuple[float, int]]) -> str:
    eps, position = places[len(places) // 2]
    found = [(row.label, cell) for row in table.rows if (cell := row.cells[position]) is not None]
    found.sort(key=lambda pair: -pair[1].value)
    radii = ", ".join(f"{radius:.4g}" for radius, _ in places)
    text = f"Line plot of accuracy against {label} radius ({radii}) for {len(table.rows)} models."
    if len(found) > 1:
        (first, best), (last, least) = found[0], found[-1]
        text += f" At {eps:.4g} the highest is {first} with {best.text} %, the lowest {last} with {least.text} %."
    return f"{text} The table below the plot has all numbers."
