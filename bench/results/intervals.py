"""Confidence intervals."""

from __future__ import annotations

CONFIDENCE = 0.95


def wilson(successes: int, count: int) -> tuple[float, float]:
    """The Wilson score interval of a share, at 95 % (Wilson 1927), by scipy.

    Raises:
        ValueError: `count` is not positive or `successes` not within 0..count.
    """
    from scipy.stats import binomtest

    interval = binomtest(successes, count).proportion_ci(confidence_level=CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)
