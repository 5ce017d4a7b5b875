"""A net's answers to fixed images, which tell two nets of the same weights apart: one's forward may differ."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_TOLERANCE = 1e-3
"""Of the spread of an image's logits; devices, threads and builds of torch differ by less than a tenth of it."""
_FLOAT32 = 1e-6
_NOISE = 4.0
"""How many times as much as from one call to the next a random net's answers may differ."""


def same_answers(first: object, second: object) -> bool:
    """Whether two nets answer alike, from their `{"logits": rows, "deviation": number}`, as manifests have them.

    Args:
        first, second: rows of logits, one for each image, None for what was no number; `deviation` is the largest
            difference between two calls. Anything else is like nothing.
    """
    if not isinstance(first, Mapping) or not isinstance(second, Mapping):
        return False
    try:
        slack = _NOISE * (float(first["deviation"]) + float(second["deviation"]))
        rows = list(zip(first["logits"], second["logits"], strict=True))
        return all(_same_row(one, other, slack) for one, other in rows)
    except (LookupError, TypeError, ValueError, OverflowError):
        return False


def _same_row(first: list[Any], second: list[Any], slack: float) -> bool:
    numbers = [float(value) for value in first if value is not None]
    spread = max(numbers) - min(numbers) if numbers else 0.0
    allowed = _TOLERANCE * spread + _FLOAT32 * max(map(abs, numbers), default=0.0) + slack
    return all(
        one is other if one is None or other is None else math.fabs(one - other) <= allowed
        for one, other in zip(first, second, strict=True)
    )
