"""Threat models: a norm and a radius, in pixels of [0, 1]; 8/255 is a number in memory and a fraction on paper."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, get_args

Norm = Literal["linf", "l2", "l1"]
NORMS: tuple[Norm, ...] = get_args(Norm)
NORM_LABELS: dict[str, str] = {"linf": "L-inf", "l2": "L2", "l1": "L1", "l0": "L0"}

_FRACTION = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*/\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*")
_LEVELS = 255
_DIGITS = 4
_LARGEST_DENOMINATOR = 1000


@dataclass(frozen=True, slots=True)
class ThreatModel:
    """All images x' in [0, 1] with ||x' - x||_norm <= eps."""

    norm: Norm
    eps: float


def parse_fraction(text: str) -> float | None:
    """The number that `8/255` stands for; None where the text is no fraction, or its denominator is 0."""
    found = _FRACTION.fullmatch(text)
    if found is None or not float(found[2]):
        return None
    return float(found[1]) / float(found[2])


def as_number(value: Any) -> Any:
    """A fraction as its number; anything else as it is, for a validator to judge."""
    number = parse_fraction(value) if isinstance(value, str) else None
    return value if number is None else number


def radius_text(eps: float, digits: int = 4) -> str:
    """A radius as people read it: `0.1`, `8/255`, or rounded to `digits` where it is neither short nor a fraction.

    Args:
        eps: in pixels of [0, 1]; its text is `n/255` where it equals that number (and `n/1000` at most otherwise).
    """
    short = f"{eps:.{digits}g}"
    if float(short) == eps:
        return short
    steps = f"{eps * _LEVELS:.{_DIGITS}g}"
    if float(steps) / _LEVELS == eps and float(steps) < 10 * _LEVELS:
        return f"{steps}/{_LEVELS}"
    close = Fraction(eps).limit_denominator(_LARGEST_DENOMINATOR) if abs(eps) < _LARGEST_DENOMINATOR else Fraction(0)
    return str(close) if close.numerator / close.denominator == eps else short


def replace_fractions(content: Any, written: dict[str, str]) -> Any:
    """Parsed TOML with every string that is a fraction replaced by its number.

    Args:
        written: gets the texts, by the number as JSON has it.
    """
    if isinstance(content, dict):
        return {name: replace_fractions(value, written) for name, value in content.items()}
    if isinstance(content, list):
        return [replace_fractions(value, written) for value in content]
    number = as_number(content)
    if number is not content:
        written[repr(number)] = content.strip()
    return number


def with_texts(content: Any, written: dict[str, str]) -> Any:
    """The inverse of `replace_fractions`: numbers as they were written."""
    if isinstance(content, dict):
        return {name: with_texts(value, written) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [with_texts(value, written) for value in content]
    return written.get(repr(content), content) if isinstance(content, float) else content
