"""Confidence intervals."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import partial
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
NORMAL_QUANTILE = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
RESAMPLES = 2000
_RESAMPLES_AT_ONCE = 200
FEW = 100
"""Of fewer values the bootstrap's percentiles are too narrow: they cover 50, 80 and 90 % at 2, 5 and 20 values."""


def wilson(successes: int, count: int) -> tuple[float, float]:
    """The Wilson score interval of a share, at 95 % (Wilson 1927).

    As scipy.stats has it (a test compares), whose import alone would take a run a second.

    Raises:
        ValueError: `count` is not positive or `successes` not within 0..count.
    """
    if count < 1 or not 0 <= successes <= count:
        raise ValueError(f"{successes} of {count} is no share")
    share, width = successes / count, NORMAL_QUANTILE**2 / count
    middle = (share + width / 2) / (1 + width)
    half = math.sqrt(width * (share * (1 - share) + width / 4)) / (1 + width)
    return 0.0 if successes == 0 else middle - half, 1.0 if successes == count else middle + half


def paired_share_interval(gained: int, lost: int, count: int) -> tuple[float, float]:
    """Of the difference of two shares of the same examples, at 95 % (Bonett and Price 2012): Wald's interval after one
    example more was gained and one lost, so that it has a width where nothing differs, too.

    Args:
        gained, lost: how many of the `count` examples only the second, or only the first, has.
    """
    up, down = (gained + 1) / (count + 2), (lost + 1) / (count + 2)
    half = NORMAL_QUANTILE * math.sqrt((up + down - (up - down) ** 2) / (count + 2))
    return max(-1.0, up - down - half), min(1.0, up - down + half)


def mean_intervals(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intervals, at 95 %, of the means over examples of several quantities at once.

    From 100 values on the percentile bootstrap (Efron 1979): examples are drawn with replacement 2,000 times, all
    quantities of an example together. The draws are keyed by the number of examples alone: two models judged on the
    same examples get the same draws, so that the interval of a paired difference comes from the same function.
    Of fewer values Student's t interval (1908), which may reach beyond what the quantity itself can be.

    Args:
        values: (n_examples, n_quantities); NaN where a quantity is not defined for an example.

    Returns:
        lower and upper ends, (n_quantities,) each; NaN for a quantity of less than two values, or with an infinite one.
    """
    if len(values) == 0:
        raise ValueError("a mean needs at least one example")
    counts = np.where(np.isinf(values).any(axis=0), 0, (~np.isnan(values)).sum(axis=0))
    low, high = np.full((2, values.shape[1]), np.nan)
    few, many = (counts > 1) & (counts < FEW), counts >= FEW
    if few.any():
        low[few], high[few] = _student(values[:, few], counts[few])
    if many.any():
        low[many], high[many] = _weighted_bootstrap(values[:, many])
    return low, high


def _student(values: NDArray[np.float64], counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    from scipy.special import stdtrit

    present = np.where(np.isfinite(values), values, np.nan)
    mean = np.nanmean(present, axis=0)
    half = stdtrit(counts - 1, (1 + CONFIDENCE) / 2) * np.nanstd(present, axis=0, ddof=1) / np.sqrt(counts)
    return mean - half, mean + half


def _weighted_bootstrap(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    count = len(values)
    present = np.isfinite(values)
    filled = np.where(present, values, 0.0)
    key = int.from_bytes(hashlib.sha256(f"bootstrap {count}".encode()).digest()[:8], "little")
    generator = np.random.Generator(np.random.Philox(key=key))
    means = np.empty((RESAMPLES, values.shape[1]))
    for begin in range(0, RESAMPLES, _RESAMPLES_AT_ONCE):
        draws = generator.multinomial(count, np.full(count, 1.0 / count), size=_RESAMPLES_AT_ONCE).astype(np.float64)
        weight = draws @ present
        total = draws @ filled
        means[begin : begin + len(draws)] = np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)
    tail = 100 * (1 - CONFIDENCE) / 2
    # a resample of many examples may miss all of the values
    low, high = np.nanpercentile(means, [tail, 100 - tail], axis=0)
    return low, high


def bootstrap(
    statistic: Callable[..., NDArray[np.float64]],
    *samples: NDArray[np.float64],
    resamples: int = RESAMPLES,
    seed: int = 0,
    method: Literal["linear", "nearest"] = "linear",
) -> tuple[float, float]:
    """The percentile bootstrap's interval of a statistic at 95 % (Efron 1979), always from the same resamples.

    Args:
        statistic: of (resamples, n, ...) of each sample, drawn independently; gives (resamples,).
        samples: (n, ...) each.
        seed: of the first sample; the next have the next.
        method: of the quantiles; `nearest` keeps them values of the statistic.
    """
    drawn = []
    for number, values in enumerate(samples, start=seed):
        places = np.random.default_rng(number).integers(len(values), size=(resamples, len(values)))
        drawn.append(values[places])
    return interval_of(statistic(*drawn), method)


def interval_of(draws: NDArray[np.float64], method: Literal["linear", "nearest"] = "linear") -> tuple[float, float]:
    """What holds 95 % of the draws."""
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method=method)
    return float(low), float(high)


def t_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Student's interval of the mean of a few values, at 95 %; the value itself on both sides where it is alone."""
    from scipy.special import stdtrit

    mean, count = float(values.mean()), len(values)
    if count < 2:
        return mean, mean
    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2) * values.std(ddof=1) / np.sqrt(count))
    return mean - half, mean + half


def student_p_value(values: NDArray[np.float64]) -> float:
    """Two-sided p-value of a mean of 0 by Student's t; 1 of fewer than two values."""
    from scipy.special import stdtr

    count = len(values)
    if count < 2:
        return 1.0
    spread = float(values.std(ddof=1)) / math.sqrt(count)
    return 2.0 * float(stdtr(count - 1, -abs(float(values.mean())) / spread)) if spread else float(not values.any())


def median_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The interval of the lower median, at 95 %: `bootstrap`.

    Of fewer than 100 values the ranks that hold it by the binomial distribution (Thompson 1936), NaN of fewer than six.
    """
    if len(values) < FEW:
        return _median_ranks(np.sort(values))
    lower_median = partial(np.quantile, q=0.5, axis=1, method="lower")
    return bootstrap(lower_median, values, resamples=1000, method="nearest")


def _median_ranks(ordered: NDArray[np.float64]) -> tuple[float, float]:
    from scipy.special import bdtr

    count = len(ordered)
    # so many values may lie beyond the median on one side and be left out
    beyond = int((bdtr(np.arange(count), count, 0.5) <= (1 - CONFIDENCE) / 2).sum())
    return (float(ordered[beyond - 1]), float(ordered[count - beyond])) if beyond else (math.nan, math.nan)
