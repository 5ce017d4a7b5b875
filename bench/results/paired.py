"""Two models on the same examples: exact and bootstrap comparisons of one metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.core.errors import BenchError
from bench.results.example_values import ExampleValues
from bench.results.intervals import bootstrap_means

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALPHA = 0.05


@dataclass(frozen=True)
class Comparison:
    """One metric of two models on the same examples; the difference is second minus first.

    Attributes:
        p_value: two-sided, of no difference: McNemar's exact test for shares, else the bootstrap.
        gained: ids of the examples that only the second has (shares), in ascending order.
        lost: ids of those that only the first has.
    """

    key: tuple[str, str, str, float | None]
    n_examples: int
    first: float
    second: float
    ci_low: float
    ci_high: float
    p_value: float
    test: str
    gained: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()

    @property
    def difference(self) -> float:
        return self.second - self.first


def compare_values(first: ExampleValues, second: ExampleValues) -> Comparison:
    """Compare one metric; examples for which either has no value are left out.

    Raises:
        BenchError: the two were not measured on the same examples, or have no value in common.
    """
    pair, ids = _on_the_same_examples(first, second)
    difference = pair[1] - pair[0]
    low, high = bootstrap_means(difference[:, None])
    facts = (first.key, len(ids), float(pair[0].mean()), float(pair[1].mean()), float(low[0]), float(high[0]))
    p_value, test = _p_value(pair)
    if test == "bootstrap":
        return Comparison(*facts, p_value, test)
    gained, lost = ids[difference > 0].tolist(), ids[difference < 0].tolist()
    return Comparison(*facts, p_value, test, tuple(gained), tuple(lost))


def difference_and_p_value(first: ExampleValues, second: ExampleValues) -> tuple[float, float]:
    """What `compare_values` says of the mean difference and its p-value, without the interval that takes its time.

    Raises:
        BenchError: as there.
    """
    pair, _ = _on_the_same_examples(first, second)
    return float(pair[1].mean()) - float(pair[0].mean()), _p_value(pair)[0]


def _on_the_same_examples(first: ExampleValues, second: ExampleValues) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(2, n) values and (n,) ids of the examples for which both have one."""
    if set(first.values.index) != set(second.values.index):
        raise BenchError(f"{first.metric} was not measured on the same examples; compare runs of equal --examples.")
    index = first.values.index.sort_values()
    pair = np.stack([one.values.reindex(index).to_numpy(np.float64) for one in (first, second)])
    kept = np.isfinite(pair).all(axis=0)
    if not kept.any():
        raise BenchError(f"{first.metric} has no example with a value in both runs.")
    return pair[:, kept], index.to_numpy()[kept]


def _p_value(pair: NDArray[np.float64]) -> tuple[float, str]:
    """McNemar's test for shares, else the bootstrap's; and its name."""
    difference = pair[1] - pair[0]
    if np.isin(pair, (0.0, 1.0)).all():
        return mcnemar(int((difference > 0).sum()), int((difference < 0).sum())), "McNemar"
    return bootstrap_p_value(difference), "bootstrap"


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p-value of McNemar's exact test from the two discordant counts (McNemar 1947)."""
    from scipy.special import bdtr  # of a fair coin both tails are alike; scipy.stats takes a second to import

    return min(1.0, 2.0 * float(bdtr(min(gained, lost), gained + lost, 0.5)))


def bootstrap_p_value(differences: NDArray[np.float64]) -> float:
    """Two-sided p-value of a mean difference of 0, normal with the bootstrap's standard error, sd / sqrt(n).

    The ideal bootstrap's standard error of a mean is known in closed form, so that no p-value is bounded below by the
    number of resamples, as counting resamples would have it (Efron and Tibshirani 1993, section 5).
    """
    from scipy.special import ndtr

    spread = float(differences.std()) / np.sqrt(len(differences))
    mean = abs(float(differences.mean()))
    if spread == 0.0:
        return 1.0 if mean == 0.0 else 0.0
    return float(2.0 * ndtr(-mean / spread))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: reject where at most alpha to keep the family's error below alpha (Holm 1979)."""
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    adjusted = np.minimum(1.0, np.maximum.accumulate(np.asarray(p_values)[order] * (count - np.arange(count))))
    result = np.empty(count)
    result[order] = adjusted
    return [float(value) for value in result]
