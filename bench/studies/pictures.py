"""Pictures that a study declares: metrics of groups of training seeds against each other, from committed runs."""

from __future__ import annotations

from matplotlib.figure import Figure
from pydantic import Field, model_validator

from bench.catalog.cards import NAME
from bench.core.toml_files import Section
from bench.leaderboard.labels import full_label
from bench.reporting.figures import Spread, spreads_figure
from bench.studies.names import Group, MetricName
from bench.studies.values import MissingInputError, Values


class Curve(Section):
    """Groups of training seeds that a line joins: a method by its strength; `at` are their places where `x` is none."""

    name: str
    groups: list[Group] = Field(min_length=1)
    at: list[float] = Field(default_factory=list)


class Picture(Section):
    """Each metric of `y` in a panel of its own against `x`, or, without one, against the places of the groups.

    A profile has one panel with the metrics of `y` side by side.
    """

    name: str = NAME
    title: str
    x: MetricName | None = None
    y: list[MetricName] = Field(min_length=1)
    labels: list[str] = Field(default_factory=list)
    """Of the metrics of `y`, where their own are too long."""
    x_label: str = ""
    y_label: str = ""
    """Of a profile."""
    profile: bool = False
    log: list[str] = Field(default_factory=list)
    """Axes, `x` or `y`, that are logarithmic."""
    curves: list[Curve] = Field(min_length=1)

    @model_validator(mode="after")
    def _has_places(self) -> Picture:
        if self.profile and (self.x is not None or any(len(curve.groups) > 1 for curve in self.curves)):
            raise ValueError(f"{self.name}: a profile has no x, and one group a curve")
        for curve in self.curves:
            if len(curve.at) != (len(curve.groups) if self.x is None and not self.profile else 0):
                raise ValueError(f"{self.name}: {curve.name} needs `at`, a place a group, where there is no x")
        if self.labels and len(self.labels) != len(self.y):
            raise ValueError(f"{self.name}: labels are as many as y")
        if not set(self.log) <= {"x", "y"}:
            raise ValueError(f"{self.name}: log names x or y")
        return self


def draw_picture(picture: Picture, values: Values) -> tuple[Figure, str] | None:
    """The picture and its caption, which names what is not there yet; None where nothing is."""
    labels = picture.labels or [full_label(of.key) for of in picture.y]
    panels: dict[str, dict[str, list[Spread]]] = {}
    missing: dict[str, dict[str, None]] = {}
    for number, (label, of) in enumerate(zip(labels, picture.y, strict=True)):
        panel = panels.setdefault(picture.y_label if picture.profile else label, {})
        for curve in picture.curves:
            places = [float(number)] if picture.profile else curve.at
            for place, group in enumerate(curve.groups):
                try:
                    spread = _spread(picture, of, group, values, at=places[place] if places else None)
                    panel.setdefault(curve.name, []).append(spread)
                except MissingInputError:
                    missing.setdefault(group if isinstance(group, str) else group[0], {})[label] = None
    if not any(panels.values()):
        return None
    x_label = picture.x_label or ("" if picture.x is None else full_label(picture.x.key))
    figure = spreads_figure(
        {label: panel for label, panel in panels.items() if panel}, x_label, ticks=labels if picture.profile else [],
        log=picture.log,
    )  # fmt: skip
    absent = (one if len(where) == len(labels) else f"{one} ({', '.join(where)})" for one, where in missing.items())
    note = f" Not there yet: {', '.join(absent)}." if missing else ""
    return figure, f"{picture.title.rstrip('.')}. Points are means over training seeds, bars their range.{note}"


def _spread(picture: Picture, of: MetricName, group: Group, values: Values, at: float | None) -> Spread:
    """The seeds of a group that have both metrics; raises MissingInputError where none has."""
    found = []
    for model in values.names(group):
        try:
            value = values.value(of, model).value
            found.append((at if picture.x is None else values.value(picture.x, model).value, value))
        except MissingInputError:
            continue
    if not found:
        raise MissingInputError(f"no {full_label(of.key)} of {group}")
    return Spread([x for x, _ in found if x is not None], [y for _, y in found])
