"""ROAR and KAR: accuracy of retrained nets against the share of pixels removed, and the areas against random pixels."""

from __future__ import annotations

from collections.abc import Sequence

from bench.reporting.page.boards import BoardTable, Row, said
from bench.reporting.page.content import DataTable, LegendEntry, Panel, PlotGroup, scaled
from bench.reporting.page.svg import Point, Series, draw_series, drawing, finish, swatch

_ACCURACY = "retrained_accuracy"
_UNMASKED = "unmasked"
_SCORES = {"roar_score": "ROAR score", "kar_score": "KAR score"}
_LEADS = {
    "roar_score": (
        "Accuracy of nets retrained from scratch after the pixels that a map ranks highest were removed. The faster a "
        "curve falls below that of random pixels, the more the map found; the score is the area between both, positive "
        "where the map is better than random."
    ),
    "kar_score": (
        "Accuracy of nets retrained from scratch on nothing but the pixels that a map ranks highest. The longer a "
        "curve stays above that of random pixels, the more the map found; the score is the area between both, positive "
        "where the map is better than random."
    ),
}


def retraining_plots(table: BoardTable) -> PlotGroup | None:
    """Curves of every map, one panel a model; None where the table has no retrained nets."""
    nets = [column.key.parts for column in table.columns if column.key.metric == _ACCURACY]
    shares = sorted({int(share) for *_, share in nets if share.isdecimal()})
    if len([share for share in shares if share]) < 2:
        return None
    maps = sorted({name for name, *_ in nets} - {_UNMASKED}, key=_order)
    slots = {name: slot for slot, name in enumerate(maps)}
    score = next((name for name in _SCORES if table.column(name) is not None), "roar_score")
    panels = [
        panel
        for place, row in enumerate(table.rows)
        if (panel := _curves(table, row, place, shares, slots)) is not None
    ]
    if not panels:
        return None
    legend = [LegendEntry(f"map {name}", name, slot, swatch(slot), False) for name, slot in slots.items()]
    scores = [panel for place, row in enumerate(table.rows) if (panel := _scores(table, row, place, score, slots))]
    return PlotGroup(
        f"{table.id}-retraining", f"{table.title}: {table.detail}",
        f"{_LEADS[score]} Bars are 95 % intervals.", legend,
        [panel for pair in zip(panels, scores, strict=False) for panel in pair] if len(scores) == len(panels) else panels,  # noqa: E501
    )  # fmt: skip


def _order(name: str) -> tuple[bool, bool, str]:
    """Random pixels first, then maps of the model, then controls."""
    return name != "random", ":" in name, name


def _curves(table: BoardTable, row: Row, place: int, shares: list[int], slots: dict[str, int]) -> Panel | None:
    start = table.cell(row, _ACCURACY, f"{_UNMASKED}/0")
    series, rows = [], []
    for name, slot in slots.items():
        found = [(share, cell) for share in shares if (cell := table.cell(row, _ACCURACY, f"{name}/{share}"))]
        if not found:
            continue
        drawn = ([(0, start)] if start is not None else []) + found
        points = [
            Point(share, 100 * cell.value, f"{row.label}, {name}, {share} % removed: {cell.text} % {cell.interval}",
                  scaled(cell.bounds, 100))
            for share, cell in drawn
        ]  # fmt: skip
        series.append(Series(f"map {name}", slot, points, is_model=False))
        by_share = dict(drawn)
        rows.append([name, *(said(by_share.get(share)) for share in shares)])
    if not series:
        return None
    identity = f"{table.id}-retrained-{place}"
    title = f"{row.label}: accuracy of retrained nets"
    alt = (
        f"Line plot of the accuracy of retrained nets against the share of pixels removed, from {shares[0]} to "
        f"{shares[-1]} %, for {len(series)} maps of {row.label}. The table below the plot has all numbers."
    )
    with drawing("pixels removed, %", "accuracy, %") as (figure, axes):
        for one in reversed(series):
            draw_series(axes, one)
        axes.set_xlim(0, 100)
        svg = finish(figure, identity, title, alt, series)
    headers = ["map", *(f"{share} % removed" for share in shares)]
    return Panel(identity, title, svg, alt, DataTable(f"{title}, %, with 95 % interval", headers, rows))


def _scores(table: BoardTable, row: Row, place: int, metric: str, slots: dict[str, int]) -> Panel | None:
    found = [(name, cell) for name in slots if (cell := table.cell(row, metric, name)) is not None]
    if not found:
        return None
    found.sort(key=lambda pair: pair[1].value)
    identity = f"{table.id}-score-{place}"
    title = f"{row.label}: {_SCORES[metric]} against random pixels"
    alt = f"Dot plot of the {_SCORES[metric]} of {len(found)} maps of {row.label}. Best is {found[-1][0]} with {found[-1][1].text}."  # noqa: E501
    series = [
        Series(
            f"map {name}", slots[name], [Point(cell.value, height, f"{name}: {cell.text} {cell.interval}", None,
                                               cell.bounds)], is_model=False, joined=False,
        )
        for height, (name, cell) in enumerate(found)
    ]  # fmt: skip
    with drawing(f"{_SCORES[metric]} (0: no better than random)", "") as (figure, axes):
        axes.axvline(0, color="#0a0b02", linewidth=1)
        for one in series:
            draw_series(axes, one)
        axes.set_yticks(range(len(found)), [name for name, _ in found])
        axes.margins(0.1, 0.15)
        svg = finish(figure, identity, title, alt, series)
    rows = [[name, cell.text, cell.interval] for name, cell in reversed(found)]
    return Panel(identity, title, svg, alt, DataTable(title, ["map", "score", "95 % interval"], rows))


def retrained_maps(tables: Sequence[BoardTable]) -> list[PlotGroup]:
    return [group for table in tables if (group := retraining_plots(table)) is not None]
