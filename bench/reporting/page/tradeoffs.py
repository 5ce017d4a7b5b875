"""Trade-offs: clean accuracy against robust accuracy, accuracy against the stability of explanations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.core.threat import NORM_LABELS
from bench.leaderboard.labels import name as metric_name
from bench.reporting.page.boards import BoardTable
from bench.reporting.page.content import (
    DataTable,
    LegendEntry,
    Names,
    Panel,
    PlotGroup,
    anchor,
    interval,
    number,
    scaled,
)
from bench.reporting.page.svg import Point, Series, draw_series, drawing, finish, ink, swatch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEAST_MODELS = 2
_OFFSETS = ((8, 0, "left"), (-8, 0, "right"), (0, 9, "center"), (0, -9, "center"), (7, 8, "left"), (-7, 8, "right"),
            (7, -8, "left"), (-7, -8, "right"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spot:
    """A model's place in a trade-off; both values are better when higher. Fractions; intervals None where unknown."""

    model: str
    x: float
    y: float
    x_interval: tuple[float, float] | None = None
    y_interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis shows: its name in a sentence, and whether it is printed in per cent."""

    name: str
    percent: bool

    @property
    def label(self) -> str:
        return f"{self.name}, %" if self.percent else self.name

    def text(self, value: float, bounds: tuple[float, float] | None) -> str:
        shown = number(value, percent=self.percent)
        return f"{shown} {interval(*bounds, percent=self.percent)}" if bounds else shown


def front(spots: Sequence[Spot]) -> list[Spot]:
    """The spots that no other equals or beats in both values, from left to right."""
    kept = [
        one
        for one in spots
        if not any(other.x >= one.x and other.y >= one.y and (other.x > one.x or other.y > one.y) for other in spots)
    ]
    return sorted(kept, key=lambda one: (one.x, -one.y))


def robustness_tradeoffs(table: BoardTable, names: Names) -> PlotGroup | None:
    """Clean accuracy against robust accuracy at each norm's reference radius and against the union."""
    clean = table.column("clean_accuracy")
    if clean is None:
        return None
    targets: list[tuple[str, str, int]] = []
    for norm, eps in table.runs[0].reference.items():
        position = table.column("robust_accuracy", norm, eps)
        if position is not None:
            targets.append((norm, f"robust accuracy, {NORM_LABELS.get(norm, norm)} {eps:.4g}", position))
    union = table.column("union_accuracy", "all")
    if union is not None:
        targets.append(("union", "worst over all norms", union))
    panels = []
    for short, name, position in targets:
        axes = Axis("clean accuracy", percent=True), Axis(name, percent=True)
        spots = _spots(table, clean, position)
        panels += _panel(f"{table.id}-tradeoff-{short}", axes, spots, names, table.detail)
    return _group(f"{table.id}-tradeoffs", f"Robustness, {table.title}: {table.detail}", _ROBUST, panels, names)


_ROBUST = (
    "Each point is a model, with its 95 % intervals; up and to the right is better. The dashed line is the Pareto "
    "front: no other model is at least as good in both. Being on it is a matter of the point values; look whether the "
    "intervals separate."
)


def stability_tradeoffs(
    tables: Sequence[BoardTable], cards: Mapping[str, Mapping[str, Any]], names: Names
) -> list[PlotGroup]:
    """Accuracy against the stability of input gradients: of the cards, and of suites that measure it."""
    groups = [_card_group(dataset, cards, names) for dataset in dict.fromkeys(name.split("/")[0] for name in cards)]
    groups += [_suite_group(table, names) for table in tables]
    return [group for group in groups if group is not None]


def _card_group(dataset: str, cards: Mapping[str, Mapping[str, Any]], names: Names) -> PlotGroup | None:
    measured: dict[str, list[Spot]] = {}
    examples: set[str] = set()
    for name, card in cards.items():
        gradients, accuracy = card.get("gradients") or {}, (card.get("accuracy") or {}).get("test")
        if not name.startswith(f"{dataset}/") or accuracy is None:
            continue
        for radius, cosine in (gradients.get("stability") or {}).items():
            measured.setdefault(str(radius), []).append(Spot(name, float(accuracy), float(cosine)))
        if "examples" in gradients:
            examples.add(f"{int(gradients['examples']):,}")
    panels = []
    for position, (radius, spots) in enumerate(measured.items()):
        axes = Axis("test accuracy", percent=True), Axis(f"gradient cosine, noise {radius}", percent=False)
        panels += _panel(anchor("stability", dataset, position), axes, spots, names,
                         f"{dataset}, from the model cards")  # fmt: skip
    lead = (
        "How little a model's input gradient turns when the image is perturbed by uniform noise of the given radius: "
        f"the mean cosine between both gradients, over {' or '.join(sorted(examples))} held-out images, as the model "
        "cards have it (cards give no intervals). Accuracy is that of the card, on the whole test split. Up and to the "
        "right is better; the dashed line is the Pareto front."
    )
    title = f"Stability of explanations, from the cards of {dataset}"
    return _group(anchor("stability", dataset), title, lead, panels, names)


def _suite_group(table: BoardTable, names: Names) -> PlotGroup | None:
    clean = table.column("clean_accuracy")
    keys = [column.key for column in table.columns if column.key.metric.startswith("stability/")]
    if clean is None or not keys:
        return None
    metric = metric_name(keys[0])
    radii = sorted({key.eps for key in keys if metric_name(key) == metric and key.eps is not None})
    panels = []
    for place, eps in enumerate(radii):
        position = table.column(keys[0].metric, keys[0].norm, eps, keys[0].subject)
        if position is None:
            continue
        spots = _spots(table, clean, position)
        axes = Axis("clean accuracy", percent=True), Axis(f"{metric}, noise {eps:.3g}", percent=False)
        panels += _panel(f"{table.id}-stability-{place}", axes, spots, names, table.detail)
    lead = f"{_ROBUST} Stability is the similarity of the maps of an image and of its uniformly perturbed copies."
    return _group(f"{table.id}-stability", f"Stability of explanations: {table.detail}", lead, panels, names)


def _spots(table: BoardTable, across: int, up: int) -> list[Spot]:
    """The models that have a number, with a place in a plot, in both columns."""
    return [
        Spot(row.model, x.value, y.value, x.bounds, y.bounds)
        for row in table.rows
        if (x := row.cells[across]) and x.drawable and (y := row.cells[up]) and y.drawable
    ]


def _group(identity: str, title: str, lead: str, panels: list[Panel], names: Names) -> PlotGroup | None:
    if not panels:
        return None
    seen = {row[0] for panel in panels for row in panel.table.rows}
    legend = [
        LegendEntry(name, names.label(name), slot, swatch(slot, joined=False), True)
        for name, slot in names.slots.items()
        if names.label(name) in seen
    ]
    return PlotGroup(identity, title, lead, legend, panels)


def _panel(identity: str, axes: tuple[Axis, Axis], spots: list[Spot], names: Names, detail: str) -> list[Panel]:
    """The scatter plot; nothing where there are too few models to trade anything."""
    if len(spots) < _LEAST_MODELS:
        return []
    x_axis, y_axis = axes
    best = front(spots)
    series = [_series(one, names, x_axis, y_axis) for one in spots]
    title = f"{y_axis.name[0].upper()}{y_axis.name[1:]} against {x_axis.name}"
    on_front = ", ".join(names.label(one.model) for one in best)
    alt = (
        f"Scatter plot of {y_axis.name} against {x_axis.name} for {len(spots)} models. On the Pareto front, from left "
        f"to right: {on_front}. The table below the plot has all numbers."
    )
    heading = f"{y_axis.name[0].upper()}{y_axis.name[1:]}"
    with drawing(x_axis.label, y_axis.label) as (figure, drawn):
        scale_x, scale_y = (100 if axis.percent else 1 for axis in axes)
        drawn.plot(
            [scale_x * one.x for one in best], [scale_y * one.y for one in best],
            color=ink("muted"), linestyle=(0, (4, 3)), linewidth=1.2, zorder=1,
        )  # fmt: skip
        for one in series:
            draw_series(drawn, one)
        drawn.margins(0.12)
        _label_points(drawn, series)
        svg = finish(figure, identity, title, alt, series)
    rows = [
        [names.label(one.model), x_axis.text(one.x, one.x_interval), y_axis.text(one.y, one.y_interval),
         "yes" if one in best else "no"]
        for one in sorted(spots, key=lambda one: -one.y)
    ]  # fmt: skip
    table = DataTable(f"{title} ({detail})", ["model", x_axis.label, y_axis.label, "on the front"], rows)
    return [Panel(identity, heading, svg, alt, table)]


def _series(spot: Spot, names: Names, x_axis: Axis, y_axis: Axis) -> Series:
    label = names.label(spot.model)
    tip = (
        f"{label}: {x_axis.name} {x_axis.text(spot.x, spot.x_interval)}, "
        f"{y_axis.name} {y_axis.text(spot.y, spot.y_interval)}"
    )
    scale_x, scale_y = (100 if axis.percent else 1 for axis in (x_axis, y_axis))
    point = Point(scale_x * spot.x, scale_y * spot.y, tip, scaled(spot.y_interval, scale_y),
                  scaled(spot.x_interval, scale_x))  # fmt: skip
    return Series(spot.model, names.slots[spot.model], [point], joined=False, label=label)


def _label_points(axes: Axes, series: Sequence[Series]) -> None:
    """Write names beside points, each where it hides nothing; a name without such a place is left to the legend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    figure = axes.figure
    canvas: Any = FigureCanvasAgg(figure)  # type: ignore[arg-type]
    canvas.draw()
    renderer = canvas.get_renderer()
    places = [axes.transData.transform((one.points[0].x, one.points[0].y)) for one in series]
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in places]
    inside = axes.get_window_extent(renderer).expanded(1.02, 1.04)
    for one in series:
        point = one.points[0]
        for right, up, side in _OFFSETS:
            text = axes.annotate(
                one.label, (point.x, point.y), (right, up), textcoords="offset points", ha=side, va="center",
                fontsize=9, color=ink("text"), zorder=4,
            )  # fmt: skip
            box = text.get_window_extent(renderer)
            free = not any(box.overlaps(other) for other in taken)
            if free and inside.containsx(box.x0) and inside.containsx(box.x1) and inside.containsy(box.y0):
                taken.append(box)
                text.set_gid(f"label:{one.slot}")
                break
            text.remove()
