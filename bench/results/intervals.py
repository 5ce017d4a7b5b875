"""Confidence intervals."""

from __future__ import annotations

import hashlib
import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
_NORMAL_QUANTILE = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
RESAMPLES = 2000
_RESAMPLES_AT_ONCE = 200


def wilson(successes: int, count: int) -> tuple[float, float]:
    """The Wilson score interval of a share, at 95 % (Wilson 1927).

    As scipy.stats has it (a test compares), whose import alone would take a run a second.

    Raises:
        ValueError: `count` is not positive or `successes` not within 0..count.
    """
    if count < 1 or not 0 <= successes <= count:
        raise ValueError(f"{successes} of {count} is no share")
    share, width = successes / count, _NORMAL_QUANTILE**2 / count
    middle = (share + width / 2) / (1 + width)
    half = math.sqrt(width * (share * (1 - share) + width / 4)) / (1 + width)
    return 0.0 if successes == 0 else middle - half, 1.0 if successes == count else middle + half


def bootstrap_means(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentile bootstrap intervals, at 95 %, of the means over examples of several quantities at once (Efron 1979).

    Examples are drawn with replacement 2,000 times, all quantities of an example together. The draws are keyed by the
    number of examples alone: two models judged on the same examples get the same draws, so that the interval of a
    paired difference comes from the same function.

    Args:
        values: (n_examples, n_quantities); NaN where a quantity is not defined for an example.

    Returns:
        lower and upper ends, (n_quantities,) each; NaN for a quantity without any value.
    """
    count = len(values)
    if count == 0:
        raise ValueError("a bootstrap needs at least one example")
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
    low, high = np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    some = present.any(axis=0)
    if some.any():  # a resample may miss all of a quantity's few values
        low[some], high[some] = np.nanpercentile(means[:, some], [tail, 100 - tail], axis=0)
    return low, high


def bootstrap_median(values: NDArray[np.float64], resamples: int = 1000) -> tuple[float, float]:
    """The percentile bootstrap interval of the lower median, at 95 %, always from the same resamples."""
    drawn = np.random.default_rng(0).integers(len(values), size=(resamples, len(values)))
    medians = np.quantile(values[drawn], 0.5, axis=1, method="lower")
    low, high = np.quantile(medians, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="nearest")
    return float(low), float(high)
