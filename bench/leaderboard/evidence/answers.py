"""A net's answers to fixed images, which tell two nets of the same weights apart: one's forward may differ."""

from __future__ import annotations

import math
from dataclasses import dataclass

_TOLERANCE = 1e-3
"""Of the spread of an image's logits; devices, threads and builds of torch differ by less than a tenth of it."""
_FLOAT32 = 1e-6
_NOISE = 4.0
"""How many times as much as from one call to the next a random net's answers may differ."""
Row = list[float | None]


@dataclass(frozen=True, slots=True)
class FixedAnswers:
    """What a net answers.

    Attributes:
        logits: a row for each image; None for what was no number.
        deviation: the largest difference between two calls.
    """

    logits: list[Row]
    deviation: float


def same_answers(first: FixedAnswers, second: FixedAnswers) -> bool:
    """Whether two nets answer alike."""
    slack = _NOISE * (first.deviation + second.deviation)
    return len(first.logits) == len(second.logits) and all(
        _same_row(one, other, slack) for one, other in zip(first.logits, second.logits, strict=True)
    )


def may_be_same(first: FixedAnswers | None, second: FixedAnswers | None) -> bool:
    """Whether two nets of equal weights may be the same, as far as their answers are known."""
    return first is None or second is None or same_answers(first, second)


def _same_row(first: Row, second: Row, slack: float) -> bool:
    numbers = [value for value in first if value is not None]
    spread = max(numbers) - min(numbers) if numbers else 0.0
    allowed = _TOLERANCE * spread + _FLOAT32 * max(map(abs, numbers), default=0.0) + slack
    return len(first) == len(second) and all(
        one is other if one is None or other is None else math.fabs(one - other) <= allowed
        for one, other in zip(first, second, strict=True)
    )
