"""Confidence intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONFIDENCE = 0.95


def wilson(successes: int, count: int) -> tuple[float, float]:
    """The Wilson score interval of a share, at 95 % (Wilson 1927), by scipy.

    Raises:
        ValueError: `count` is not positive or `successes` not within 0..count.
    """
    from scipy.stats import binomtest

    interval = binomtest(successes, count).proportion_ci(confidence_level=CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_mean(values: NDArray[np.float64], resamples: int = 2000) -> tuple[float, float]:
    """The percentile bootstrap interval of a mean, at 95 %, always from the same resamples (Efron 1979)."""
    import numpy as np

    draws = np.random.default_rng(0).multinomial(len(values), np.full(len(values), 1 / len(values)), size=resamples)
    low, high = np.quantile(draws @ values / len(values), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def bootstrap_median(values: NDArray[np.float64], resamples: int = 1000) -> tuple[float, float]:
    """The percentile bootstrap interval of the lower median, at 95 %, always from the same resamples."""
    import numpy as np

    drawn = np.random.default_rng(0).integers(len(values), size=(resamples, len(values)))
    medians = np.quantile(values[drawn], 0.5, axis=1, method="lower")
    low, high = np.quantile(medians, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="nearest")
    return float(low), float(high)
