"""What a metric is: its key, which way it is better, and how numbers per example become a value with an interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bench.core.threat import radius_text
from bench.leaderboard.statistics.intervals import mean_intervals, wilson

if TYPE_CHECKING:
    import pandas as pd

Direction = Literal["higher", "lower", "descriptive"]
"""Which way a model is better; `descriptive` where the number describes and does not judge."""
Unit = Literal["share", "number"]
"""A share is a fraction and printed in per cent; anything else is printed as it is."""
Prominence = Literal["headline", "usual", "detail"]
"""Headlines say what a suite is about and come first; details are left out of tables with too many columns."""


EXTERNAL = "external:"
"""How the attack of a number is called that others' adversarial images have lowered."""


@dataclass(frozen=True, slots=True)
class MetricKey:
    """What tells the metrics of one run apart, and pairs those of two runs.

    Attributes:
        metric: a name that its protocol declares, e.g. `robust_accuracy` or `stability/cosine`; nothing takes it apart.
        subject: what of the model is measured: an attribution method, a corruption, a share of pixels; several parts
            are joined by `/`, e.g. `gaussian_noise/3`.
        attack: the attack that it is measured under, where it is.
        norm: of the attack's ball.
        eps: the suite's own figure, pixels in [0, 1]; None where there is none. Radii are compared by equality.
    """

    metric: str
    subject: str = ""
    attack: str = ""
    norm: str = ""
    eps: float | None = None

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Self:
        """The key of a row, a manifest's entry or a claim, where no radius may also be NaN."""
        eps = row.get("eps")
        metric, subject, attack, norm = (str(row.get(name, "")) for name in KEY_COLUMNS[:-1])
        return cls(metric, subject, attack, norm, eps=None if eps is None or eps != eps else float(eps))

    @property
    def is_external(self) -> bool:
        """Whether it is of others' adversarial images together with the suite's own attacks."""
        return self.attack.startswith(EXTERNAL)

    @property
    def parts(self) -> tuple[str, ...]:
        """What the subject is made of: `gaussian_noise` and `3` of `gaussian_noise/3`."""
        return tuple(self.subject.split("/"))

    def __str__(self) -> str:
        """As messages name it."""
        radius = "" if self.eps is None else radius_text(self.eps, 6)
        parts = (self.metric, self.subject, self.attack, self.norm, radius)
        return " ".join(part for part in parts if part)


KEY_COLUMNS = tuple(field.name for field in fields(MetricKey))


Columns: TypeAlias = "pd.DataFrame | Mapping[str, list[Any]]"
"""Rows by the names of their columns; lists where there are hundreds of small groups, for which pandas is slow."""


def keys_of(rows: Columns) -> list[MetricKey]:
    """The keys of a leaderboard's rows, in their order."""
    *texts, radii = (list(rows[name]) for name in KEY_COLUMNS)
    return list(map(MetricKey, *texts, (None if eps != eps else eps for eps in radii)))


@dataclass(frozen=True, slots=True)
class Metric:
    """A number of the leaderboard; the ends of the interval are NaN where there are too few examples for one."""

    key: MetricKey
    value: float
    ci_low: float
    ci_high: float
    n_examples: int
    direction: Direction
    unit: Unit
    prominence: Prominence = "usual"

    def as_dict(self) -> dict[str, Any]:
        """Flat, as JSON and the leaderboard have it: None where there is no number."""
        whole = asdict(self)
        flat = whole.pop("key") | whole
        return {name: None if value != value else value for name, value in flat.items()}


@dataclass(frozen=True, slots=True)
class ExampleValues:
    """One metric of a run before the mean is taken: what two models can be compared by, example by example.

    Attributes:
        values: indexed by example id. Of a share bool, a verdict an example, or float; NaN where the metric is not
            defined for an example.
    """

    key: MetricKey
    values: pd.Series
    direction: Direction
    unit: Unit
    prominence: Prominence = "usual"


def derived_metrics(quantities: Sequence[ExampleValues]) -> list[Metric]:
    """The mean of each quantity with its interval; quantities without any value are left out.

    Verdicts, and shares that are 0 or 1 of every example, get Wilson's interval, other numbers that of
    `mean_intervals`, which ends at 0 and 1 for a share. What is no bool must all be indexed by the same examples, in
    any order.
    """
    numbers = iter(_means([one for one in quantities if one.values.dtype != bool]))
    found = (_share(one) if one.values.dtype == bool else next(numbers) for one in quantities)
    return [metric for metric in found if metric is not None]


def mean_value(values: NDArray[np.float64]) -> float:
    """The mean of the values that are there; NaN, which is no result, where that is minus infinity or undefined."""
    with np.errstate(invalid="ignore"):  # infinities of both signs
        mean = float(np.nanmean(values))
    return mean if mean > -np.inf else np.nan


def _share(one: ExampleValues) -> Metric:
    successes, count = int(one.values.sum()), len(one.values)
    return Metric(one.key, successes / count, *wilson(successes, count), count, one.direction, one.unit, one.prominence)


def _means(quantities: Sequence[ExampleValues]) -> list[Metric | None]:
    if not quantities:
        return []
    index = quantities[0].values.index.sort_values()
    if any(len(one.values) != len(index) or not index.isin(one.values.index).all() for one in quantities):
        raise ValueError("metrics of one run must be over the same examples; use NaN where one is not defined")
    table = np.stack([one.values.reindex(index).to_numpy(np.float64) for one in quantities], axis=1)
    bounds = np.stack(mean_intervals(table))
    shares = np.array([one.unit == "share" for one in quantities])
    bounds[:, shares] = bounds[:, shares].clip(0.0, 1.0)  # Student's interval of few examples knows no bounds
    counts = (~np.isnan(table)).sum(axis=0)
    hits = np.nansum(table, axis=0)
    verdicts = shares & (counts > 0) & (np.isnan(table) | (table == 0.0) | (table == 1.0)).all(axis=0)
    for column in np.flatnonzero(verdicts):  # the bootstrap of verdicts that are all alike has no width
        bounds[:, column] = wilson(int(hits[column]), int(counts[column]))
    return [
        Metric(
            key=one.key, value=mean_value(table[:, column]), ci_low=float(bounds[0, column]),
            ci_high=float(bounds[1, column]), n_examples=int(counts[column]), direction=one.direction, unit=one.unit,
            prominence=one.prominence,
        )
        if counts[column] else None
        for column, one in enumerate(quantities)
    ]  # fmt: skip
