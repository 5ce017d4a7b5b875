"""Numbers per example, and their means with intervals: what a leaderboard row of a continuous metric is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.leaderboard.metrics import Metric
from bench.leaderboard.statistics.intervals import mean_intervals

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ExampleValues:
    """One metric of a run before the mean is taken: what two models can be compared by, example by example.

    Attributes:
        metric: its name; parts are separated by `/`, the kind of metric first: `stability/cosine/gradient`.
        values: indexed by example id; NaN where the metric is not defined for that example.
    """

    metric: str
    values: pd.Series
    attack: str = ""
    norm: str = ""
    eps: float | None = None

    @property
    def key(self) -> tuple[str, str, str, float | None]:
        """What tells the metrics of one run apart, and pairs those of two."""
        return self.metric, self.attack, self.norm, self.eps


def mean_metrics(quantities: Sequence[ExampleValues]) -> list[Metric]:
    """The mean of each quantity with its interval; quantities without any value are left out.

    All must be indexed by the same examples, in any order.
    """
    if not quantities:
        return []
    index = quantities[0].values.index.sort_values()
    if any(len(one.values) != len(index) or not index.isin(one.values.index).all() for one in quantities):
        raise ValueError("metrics of one run must be over the same examples; use NaN where one is not defined")
    table = np.stack([one.values.reindex(index).to_numpy(np.float64) for one in quantities], axis=1)
    low, high = mean_intervals(table)
    counts = np.isfinite(table).sum(axis=0)
    return [
        Metric(
            one.metric, float(np.nanmean(table[:, column])), float(low[column]), float(high[column]),
            int(counts[column]), one.attack, one.norm, one.eps,
        )
        for column, one in enumerate(quantities)
        if counts[column]
    ]  # fmt: skip
