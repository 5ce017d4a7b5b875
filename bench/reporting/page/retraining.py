"""ROAR and KAR: accuracy of retrained nets against the share of pixels removed, and the areas against random pixels."""

from __future__ import annotations

from bench.reporting.page.boards import BoardTable, Row
from bench.reporting.page.content import DataTable, LegendEntry, Panel, PlotGroup, draw_panel, said
from bench.reporting.page.svg import Axes, Point, Series

_ACCURACY = "retrained_accuracy"
_UNMASKED = "unmasked"
_SCORES = {"roar_score": "ROAR score", "kar_score": "KAR score"}
_LEADS = {
    "roar_score": "after the pixels that a map ranks highest were removed. The faster a curve falls below",
    "kar_score": "on nothing but the pixels that a map ranks highest. The longer a curve stays above",
}
_CONTROL = "mask_only"
_CONTROL_LEAD = (
    "Nets of mask_only see no picture, only which pixels were masked. Where they classify well, the control decides: "
    "the score tells what the masks' shapes give away, not what the pixels are worth. "
)


def retraining_plots(table: BoardTable) -> PlotGroup | None:
    """Curves of every map, and its score, one panel each a model; None where the table has no retrained nets."""
    nets = [column.key.parts for column in table.columns if column.key.metric == _ACCURACY]
    shares = sorted({int(share) for *_, share in nets if share.isdecimal()})
    if len([share for share in shares if share]) < 2:
        return None
    maps = sorted({name for name, *_ in nets} - {_UNMASKED}, key=_order)
    slots = {name: slot for slot, name in enumerate(maps)}
    score = next((name for name in _SCORES if table.column(name) is not None), "roar_score")
    panels = []
    for place, row in enumerate(table.rows):
        pair = _curves(table, row, place, shares, slots=slots), _scores(table, row, place, score, slots=slots)
        panels += [panel for panel in pair if panel is not None]
    if not panels:
        return None
    legend = [LegendEntry(f"map {name}", name, slot, is_model=False) for name, slot in slots.items()]
    control = _CONTROL_LEAD if any(name.startswith(_CONTROL) for name in maps) else ""
    lead = (
        f"Accuracy of nets retrained from scratch {_LEADS[score]} that of random pixels, the more the map found; the "
        f"score is the area between both, positive where the map is better than random. {control}Bars are 95 % "
        "intervals."
    )
    return PlotGroup(
        f"{table.id}-retraining", table.title, detail=table.detail, lead=lead, legend=legend, panels=panels
    )  # fmt: skip


def _order(name: str) -> tuple[bool, bool, str]:
    """Random pixels first, then maps of the model, then controls."""
    return name != "random", ":" in name, name


def _curves(table: BoardTable, row: Row, place: int, shares: list[int], slots: dict[str, int]) -> Panel | None:
    start = table.number(row, _ACCURACY, f"{_UNMASKED}/0")
    series, rows = [], []
    for name, slot in slots.items():
        found = {share: cell for share in shares if (cell := table.number(row, _ACCURACY, f"{name}/{share}"))}
        if not found:
            continue
        found = ({} if start is None else {0: start}) | found
        points = [
            Point(share, cell.drawn, f"{row.label}, {name}, {share} % removed: {cell.said_with_unit}", cell.bar)
            for share, cell in found.items()
        ]
        series.append(Series(f"map {name}", slot, points, is_model=False))
        rows.append([name, *(said(found.get(share)) for share in shares)])
    if not series:
        return None
    title = f"{row.label}: accuracy of retrained nets"
    headers = ["map", *(f"{share} % removed" for share in shares)]
    return draw_panel(
        f"{table.id}-retrained-{place}", title,
        alt=f"Line plot of the accuracy of retrained nets against the share of pixels removed, from {shares[0]} to "
            f"{shares[-1]} %, for {len(series)} maps of {row.label}.",
        series=series, axes=Axes(("pixels removed, %", "accuracy, %"), x=(0, 100)),
        table=DataTable(f"{title}, %, with 95 % interval", headers, rows),
    )  # fmt: skip


def _scores(table: BoardTable, row: Row, place: int, metric: str, slots: dict[str, int]) -> Panel | None:
    found = {name: cell for name in slots if (cell := table.number(row, metric, name)) is not None}
    if not found:
        return None
    found = dict(sorted(found.items(), key=lambda pair: pair[1].value))
    *_, best = [name for name in found if not name.startswith(_CONTROL)] or found
    title = f"{row.label}: {_SCORES[metric]} against random pixels"
    return draw_panel(
        f"{table.id}-score-{place}", title,
        alt=f"Dot plot of the {_SCORES[metric]} of {len(found)} maps of {row.label}. Best is {best} with "
            f"{found[best].text}.",
        axes=Axes((f"{_SCORES[metric]} (0: no better than random)", ""), y=(-0.5, len(found) - 0.5), rows=list(found)),
        series=[
            Series(f"map {name}", slots[name], [Point(cell.drawn, height, f"{name}: {cell.said}", x_interval=cell.bar)],
                   is_model=False, joined=False)
            for height, (name, cell) in enumerate(found.items())
        ],
        table=DataTable(title, ["map", "score", "95 % interval"],
                        [[name, cell.text, cell.interval] for name, cell in reversed(found.items())]),
    )  # fmt: skip
