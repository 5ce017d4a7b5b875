"""Trade-offs: clean accuracy against robust accuracy, accuracy against the stability of explanations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.catalog.cards import ModelCard
from bench.core.threat import radius_text
from bench.leaderboard.evidence.finished_runs import shared_reference
from bench.leaderboard.labels import balls
from bench.leaderboard.labels import name as metric_name
from bench.leaderboard.order import usual_count
from bench.leaderboard.views import undominated
from bench.reporting.page.boards import BoardTable
from bench.reporting.page.content import DataTable, LegendEntry, Names, Number, Panel, PlotGroup, anchor, draw_panel
from bench.reporting.page.svg import Axes, Point, Series

_LEAST_MODELS = 2


@dataclass(frozen=True, slots=True)
class Spot:
    """A model's place in a trade-off; what lies across is better when higher."""

    model: str
    x: Number
    y: Number

    @property
    def goodness(self) -> float:
        """What lies up, better when higher."""
        return -self.y.value if self.y.from_one else self.y.value

    @property
    def apart(self) -> bool:
        """Whether it is held against no other."""
        return self.x.apart or self.y.apart


def front(spots: Sequence[Spot]) -> list[Spot]:
    """The spots that no other equals or beats in both values, from left to right; without those that stand apart."""
    held = [one for one in spots if not one.apart]
    kept = undominated([(one.x.value, one.goodness) for one in held], [False] * len(held))
    return sorted((held[place] for place in kept), key=lambda one: (one.x.value, -one.goodness))


def robustness_tradeoffs(table: BoardTable, names: Names) -> PlotGroup | None:
    """Clean accuracy against robust accuracy at each norm's reference radius and against the union."""
    targets = {
        norm: (f"robust accuracy, {balls({norm: eps})}", table.column("robust_accuracy", norm, eps))
        for norm, eps in shared_reference(table.runs).items()
    } | {"union": ("worst over all norms", table.column("union_accuracy", "all"))}
    panels = []
    for short, (name, place) in targets.items():
        labels, spots = ("clean accuracy", name), _spots(table, place)
        panels.append(_panel(f"{table.id}-tradeoff-{short}", labels, spots, names, detail=table.detail))
    title, dataset = f"Robustness, {table.title}", str(table.runs[0].shared["dataset"])
    return _group(f"{table.id}-tradeoffs", (title, table.detail, _ROBUST), panels, names=names, dataset=dataset)


_ROBUST = (
    "Each point is a model, with its 95 % intervals; up and to the right is better. The dashed line is the Pareto "
    "front: no other model is at least as good in both. Being on it is a matter of the point values; look whether the "
    "intervals separate. A model measured on another number of images than most is held against none."
)


def stability_tradeoffs(tables: Sequence[BoardTable], cards: Mapping[str, ModelCard], names: Names) -> list[PlotGroup]:
    """Accuracy against the stability of input gradients: of the cards, and of suites that measure it."""
    groups = [_card_group(dataset, cards, names) for dataset in dict.fromkeys(name.split("/")[0] for name in cards)]
    groups += [_suite_group(table, names) for table in tables]
    return [group for group in groups if group is not None]


def _card_group(dataset: str, cards: Mapping[str, ModelCard], names: Names) -> PlotGroup | None:
    measured: dict[str, list[Spot]] = {}
    examples: set[str] = set()
    own = {name: card for name, card in cards.items() if card.dataset == dataset}
    counts = {
        name: (card.accuracy.test_examples, card.gradients.examples)
        for name, card in own.items()
        if card.accuracy.test is not None and card.gradients is not None
    }
    usual = usual_count(counts.values())
    for name, card in own.items():
        gradients, accuracy = card.gradients, card.accuracy.test
        if accuracy is None or gradients is None:
            continue
        across = Number(accuracy, percent=True, apart=counts[name] != usual)
        for radius, cosine in gradients.stability.items():
            measured.setdefault(radius, []).append(Spot(name, across, Number(cosine)))
        examples.add(f"{gradients.examples:,}")
    panels = [
        _panel(anchor("stability", dataset, position), ("test accuracy", f"gradient cosine, noise {radius}"), spots,
               names, detail=f"{dataset}, from the model cards")
        for position, (radius, spots) in enumerate(measured.items())
    ]  # fmt: skip
    lead = (
        "How little a model's input gradient turns when the image is perturbed by uniform noise of the given radius: "
        f"the mean cosine between both gradients, over {' or '.join(sorted(examples))} held-out images, as the model "
        "cards have it (cards give no intervals). Accuracy is that of the card, on the whole test split. Up and to the "
        "right is better; the dashed line is the Pareto front."
    )
    words = "Stability of explanations", f"from the cards of {dataset}", lead
    return _group(anchor("stability", dataset), words, panels, names=names, dataset=dataset)


def _suite_group(table: BoardTable, names: Names) -> PlotGroup | None:
    columns = [column for column in table.columns if column.key.metric.startswith("stability/")]
    panels = []
    for place, column in enumerate(one for one in columns if metric_name(one.key) == metric_name(columns[0].key)):
        lack = "1 - " if column.from_one else ""
        labels = ("clean accuracy", f"{lack}{metric_name(column.key)}, noise {radius_text(column.key.eps or 0.0)}")
        spots = _spots(table, table.columns.index(column))
        panels.append(_panel(f"{table.id}-stability-{place}", labels, spots, names, detail=table.detail))
    lead = (
        f"{_ROBUST} Stability is the similarity of the maps of an image and of its uniformly perturbed copies; where "
        "all models come near 1 the axis has what they lack to it, and down is better."
    )
    words, dataset = ("Stability of explanations", table.detail, lead), str(table.runs[0].shared["dataset"])
    return _group(f"{table.id}-stability", words, panels, names=names, dataset=dataset)


def _spots(table: BoardTable, up: int | None) -> list[Spot]:
    """The models that have a number, with a place in a plot, in this column and for clean accuracy."""
    across = table.column("clean_accuracy")
    if across is None or up is None:
        return []
    return [
        Spot(row.model, x, y)
        for row in table.rows
        if (x := row.cells[across]) and x.drawable and (y := row.cells[up]) and y.drawable
    ]


def _group(
    identity: str, words: tuple[str, str, str], panels: Sequence[Panel | None], *, names: Names, dataset: str
) -> PlotGroup | None:
    """The panels that there are, `words` being title, detail and lead."""
    title, detail, lead = words
    shown = [panel for panel in panels if panel is not None]
    seen = {row[0] for panel in shown for row in panel.table.rows}
    legend = [
        LegendEntry(name, names.short(name), slot, joined=False)
        for name, slot in names.slots.items()
        if name.startswith(f"{dataset}/") and names.short(name) in seen
    ]
    return PlotGroup(identity, title, detail=detail, lead=lead, legend=legend, panels=shown) if shown else None


def _panel(identity: str, labels: tuple[str, str], spots: list[Spot], names: Names, detail: str) -> Panel | None:
    """The scatter plot; nothing where there are too few models to trade anything."""
    if len(spots) < _LEAST_MODELS:
        return None
    best = front(spots)
    x_name, y_name = labels
    x_label, y_label = (
        f"{name}, %" if number.percent else name for name, number in zip(labels, (spots[0].x, spots[0].y), strict=True)
    )
    series = [_series(one, names, labels) for one in spots]
    heading = f"{y_name[0].upper()}{y_name[1:]}"
    title = f"{heading} against {x_name}"
    rows = []
    for one in sorted(spots, key=lambda one: (one.apart, -one.goodness)):
        on_front = "other images" if one.apart else "yes" if one in best else "no"
        rows.append([names.short(one.model), one.x.said, one.y.said, on_front])
    return draw_panel(
        identity, heading, title=title,
        alt=f"Scatter plot of {y_name} against {x_name} for {len(spots)} models. On the Pareto front, from left to "
            f"right: {', '.join(names.short(one.model) for one in best)}.",
        series=series, axes=Axes((x_label, y_label), guide=[(one.x.drawn, one.y.drawn) for one in best]),
        table=DataTable(f"{title} ({detail})", ["model", x_label, y_label, "on the front"], rows),
    )  # fmt: skip


def _series(spot: Spot, names: Names, labels: tuple[str, str]) -> Series:
    label = names.short(spot.model)
    tip = f"{label}: {labels[0]} {spot.x.said}, {labels[1]} {spot.y.said}"
    point = Point(spot.x.drawn, spot.y.drawn, tip, spot.y.bar, x_interval=spot.x.bar)
    return Series(spot.model, names.slots[spot.model], [point], joined=False, label=label)
