"""Two models on the same examples: tests of one metric's difference."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bench.core.errors import BenchError
from bench.leaderboard.metrics import Direction, ExampleValues, MetricKey, Unit
from bench.leaderboard.statistics.intervals import mean_intervals, paired_share_interval, student_p_value

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALPHA = 0.05
_ALL_SIGNS = 14
"""So many differences are tried with all signs: 8,192 sums."""


@dataclass(frozen=True)
class Comparison:
    """One metric of two models on the same examples; the difference is second minus first.

    Attributes:
        p_value: two-sided, of no difference; `test` names what it comes from: McNemar's exact test for shares, for
            means that of all signs or Student's t.
        gained: ids of the examples that only the second has (shares), in ascending order.
        lost: ids of those that only the first has.
    """

    key: MetricKey
    direction: Direction
    unit: Unit
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
    """Compare one metric; examples for which either has no value, NaN, are left out.

    Raises:
        BenchError: the two were not measured on the same examples, have no value in common, or an infinite one.
    """
    table, everything = _aligned([first, second])
    kept = _in_both(table, first.key)
    pair, ids = table[:, kept], everything[kept]
    difference = pair[1] - pair[0]
    p_value, test = _p_value(pair)
    gained, lost = (ids[side].tolist() if test == "McNemar" else () for side in (difference > 0, difference < 0))
    if test == "McNemar":
        low, high = paired_share_interval(len(gained), len(lost), len(ids))
    else:
        (low,), (high,) = mean_intervals(difference[:, None])
    return Comparison(
        key=first.key, direction=second.direction, unit=second.unit, n_examples=len(ids), first=float(pair[0].mean()),
        second=float(pair[1].mean()), ci_low=float(low), ci_high=float(high), p_value=p_value, test=test,
        gained=tuple(gained), lost=tuple(lost),
    )  # fmt: skip


def compare_defined(first: ExampleValues, second: ExampleValues) -> Comparison:
    """Compare on how many of its examples one metric is defined; raises BenchError where these are not the same."""
    pair = (replace(one, values=one.values.notna(), direction="higher", unit="share") for one in (first, second))
    return compare_values(*pair)


def share_values(first: ExampleValues, second: ExampleValues) -> bool:
    """Whether any example has a value in both."""
    ids = [one.values.dropna().index for one in (first, second)]
    return not ids[0].intersection(ids[1]).empty


def _aligned(values: Sequence[ExampleValues]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(m, n) values and (n,) ids, ascending, of metrics that were all measured on the same examples.

    Raises:
        BenchError: they were not; or a value is infinite, which is no missing value and has no mean to be compared.
    """
    index = values[0].values.index.sort_values()
    examples = set(index)
    if any(set(one.values.index) != examples for one in values):
        raise BenchError(f"{values[0].key} was not measured on the same examples; compare runs of as many examples.")
    table = np.stack([one.values.reindex(index).to_numpy(np.float64) for one in values])
    if np.isinf(table).any():
        raise BenchError(
            f"{values[0].key} is infinite for an example, so that means cannot be compared; "
            "its protocol must give a finite value, or NaN where it is undefined."
        )
    return table, index.to_numpy()


def _in_both(pair: NDArray[np.float64], key: MetricKey) -> NDArray[np.bool_]:
    """(n,) which examples have a value in both rows."""
    kept = np.asarray(~np.isnan(pair).any(axis=0))
    if not kept.any():
        raise BenchError(f"{key} has no example with a value in both runs.")
    return kept


def _p_value(pair: NDArray[np.float64]) -> tuple[float, str]:
    """McNemar's test for shares, else that of the mean; and its name."""
    difference = pair[1] - pair[0]
    if np.isin(pair, (0.0, 1.0)).all():
        return mcnemar(int((difference > 0).sum()), int((difference < 0).sum())), "McNemar"
    return mean_p_value(difference)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p-value of McNemar's exact test from the two discordant counts (McNemar 1947)."""
    from scipy.special import bdtr  # of a fair coin both tails are alike; scipy.stats takes a second to import

    return min(1.0, 2.0 * float(bdtr(min(gained, lost), gained + lost, 0.5)))


def mean_p_value(differences: NDArray[np.float64]) -> tuple[float, str]:
    """Two-sided p-value of a mean difference of 0, and the test's name.

    Where two models do not differ, each difference might as well have had the other sign: up to 14 differences that
    are not 0 are tried with all signs, which is exact (Fisher 1935), so that of fewer than six no p-value is below
    0.05 and of one it is 1. More are tested by Student's t (1908), in no case below what all signs could say.
    """
    moved = differences[differences != 0.0]
    if len(moved) <= _ALL_SIGNS:
        return _sign_flip_p_value(moved), "sign flips"
    return max(student_p_value(differences), 2.0 ** (1 - len(moved))), "t"


def _sign_flip_p_value(differences: NDArray[np.float64]) -> float:
    """The share of all ways to set the signs whose sum is as far from 0 as the one seen."""
    count = len(differences)
    if count == 0:
        return 1.0
    # the first sign stays: turning all of them round changes no distance from 0
    signs = 1 - 2 * (np.arange(1 << (count - 1))[:, None] >> np.arange(count) & 1)
    sums = np.abs(signs @ differences)
    return float((sums >= sums[0] - 1e-9 * np.abs(differences).sum()).mean())


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: reject where at most alpha to keep the family's error below alpha (Holm 1979)."""
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    adjusted = np.minimum(1.0, np.maximum.accumulate(np.asarray(p_values)[order] * (count - np.arange(count))))
    result = np.empty(count)
    result[order] = adjusted
    return [float(value) for value in result]


def _compared(
    table: NDArray[np.float64], pairs: Sequence[tuple[int, int]], key: MetricKey
) -> list[tuple[float, float]]:
    """Difference, second minus first, and p-value of each pair of rows."""
    if np.isin(table, (0.0, 1.0)).all():
        wins = (1.0 - table) @ table.T  # [first, second]: how many examples only the second has
        counts = [(int(wins[first, second]), int(wins[second, first])) for first, second in pairs]
        return [(float(gained - lost), mcnemar(gained, lost)) for gained, lost in counts]
    found = []
    for places in pairs:
        pair = table[list(places)]
        pair = pair[:, _in_both(pair, key)]
        found.append((float(pair[1].mean()) - float(pair[0].mean()), _p_value(pair)[0]))
    return found


def rank_with_ties(values: Mapping[str, ExampleValues]) -> dict[str, int]:
    """Rank of each model on one metric: 1 plus the number of models that are significantly better.

    Every pair is tested on the same examples, with Holm's correction over all pairs at 5 %. Models that no test
    separates may share a rank. A model that has no value on an example where another has gets none, unless it alone has
    any.

    Raises:
        BenchError: the models were not measured on the same examples, or a value is infinite.
    """
    if not values:
        return {}
    table, _ = _aligned(list(values.values()))
    defined = ~np.isnan(table)
    pairs = [pair for pair in itertools.combinations(range(len(values)), 2) if defined[list(pair)].all(axis=0).any()]
    compared = _compared(table, pairs, next(iter(values.values())).key)
    adjusted = holm([p_value for _, p_value in compared])
    better_is_higher = all(one.direction != "lower" for one in values.values())
    beaten = [0] * len(values)
    for (first, second), (difference, _), p_value in zip(pairs, compared, adjusted, strict=True):
        if p_value <= ALPHA and difference != 0:
            second_wins = (difference > 0) == better_is_higher
            beaten[first if second_wins else second] += 1
    known = np.flatnonzero(defined.any(axis=1))
    tested = known if len(known) == 1 else np.unique(pairs)
    return {model: 1 + beaten[place] for place, model in enumerate(values) if place in tested}
