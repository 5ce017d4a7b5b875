"""One metric of one run, and how records become shares with an interval."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bench.leaderboard.statistics.intervals import wilson


@dataclass(frozen=True, slots=True)
class Metric:
    """A number of the leaderboard. `value` is a fraction; `eps` is in pixels of [0, 1], None where there is none.

    The ends of the interval are NaN where there are too few examples for one.
    """

    metric: str
    value: float
    ci_low: float
    ci_high: float
    n_examples: int
    attack: str = ""
    norm: str = ""
    eps: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it: None where there is no number."""
        return {name: None if value != value else value for name, value in asdict(self).items()}


def share(
    metric: str, successes: int, count: int, *, attack: str = "", norm: str = "", eps: float | None = None
) -> Metric:
    """A share of examples with its Wilson interval."""
    low, high = wilson(successes, count)
    return Metric(metric, successes / count, low, high, count, attack, norm, eps)
