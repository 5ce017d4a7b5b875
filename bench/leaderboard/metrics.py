"""One metric of one run, and how records become shares with an interval."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from bench.leaderboard.statistics.intervals import wilson

Direction = Literal["higher", "lower", "descriptive"]
"""Which way a model is better; `descriptive` where the number describes and does not judge."""
Unit = Literal["share", "number"]
"""A share is printed in per cent; anything else as it is."""


@dataclass(frozen=True, slots=True)
class MetricKey:
    """What a metric is: what tells the metrics of one run apart, and pairs those of two runs.

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
