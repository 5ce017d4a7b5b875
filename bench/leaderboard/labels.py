"""How people read a metric's key: in tables, plots, messages and on the page."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from bench.core.names import select_names
from bench.core.threat import NORM_LABELS, radius_text
from bench.leaderboard.metrics import Direction, MetricKey, Unit

FROM_ONE = "1 - "
"""Goes before the name of what is read from 1."""
_NEAR_ONE = 0.98
"""From here on three digits hardly tell values apart that can't exceed 1."""
_SHORT = {"clean_accuracy": "clean", "union_accuracy": "union"}
_PATHS = ("insertion", "deletion", "prediction_kept")
"""Written as one path with their subjects, as is every metric whose own name is a path."""


def label(key: MetricKey, *, attack: bool = True) -> str:
    """The column's name, e.g. `clean`, `sweep L-inf 0.1`, `stability/cosine/gradient uniform L-inf 8/255`.

    Args:
        attack: whether robust accuracies name it, where several ran.
    """
    metric, subject = key.metric, key.subject
    if metric in _SHORT:
        return _SHORT[metric]
    if metric == "robust_accuracy":
        return _words(key.attack if attack else "", ball(key))
    if metric == "median_distance":
        return f"median {ball(key)}"
    if metric == "robust_accuracy_after":
        return f"after {key.attack} {ball(key)}"
    if metric == "corruption_accuracy":
        return "all corruptions" if subject == "all" else _words(*key.parts).replace("_", " ")
    if metric == "retrained_accuracy":
        return f"{metric}_{key.parts[-1]} {key.parts[0]}"
    return _words(name(key), key.attack, ball(key))


def full_label(key: MetricKey) -> str:
    """As sentences name it, e.g. `robust accuracy (sweep, L-inf 0.1)`."""
    detail = ", ".join(part for part in (key.attack, ball(key)) if part)
    return in_words(key) + (f" ({detail})" if detail else "")


def name(key: MetricKey) -> str:
    """What is measured of what, without attack and ball."""
    is_path = "/" in key.metric or key.metric in _PATHS
    return "/".join((key.metric, key.subject)) if is_path and key.subject else _words(key.metric, key.subject)


def in_words(key: MetricKey) -> str:
    """As `name`, without underscores but those of a file of the user's, e.g. `roar score my_maps.py:squared`."""
    parts = re.split("([/ ])", name(key))
    return "".join(part if ".py:" in part else part.replace("_", " ") for part in parts)


def ball(key: MetricKey) -> str:
    """Norm and radius, e.g. `L-inf 0.1`."""
    return _words(NORM_LABELS.get(key.norm, key.norm), "" if key.eps is None else radius_text(key.eps))


def balls(radii: Mapping[str, float]) -> str:
    """One radius a norm, e.g. `L-inf 8/255, L2 0.5, L1 12`."""
    return ", ".join(f"{NORM_LABELS[norm]} {radius_text(radii[norm])}" for norm in NORM_LABELS if norm in radii)


def small_number(value: float) -> str:
    """With two digits that count, and no exponent: `0.000041`."""
    if value != value:
        return "-"
    decimals = 1 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{max(decimals, 0)}f}"


def near_one(value: float) -> str:
    """With two digits of what it lacks to 1, `0.99991`, where three digits would not do; empty elsewhere."""
    return f"{value:.{min(1 - math.floor(math.log10(1 - value)), 9)}f}" if 0.99 < value < 1 else ""


def read_from_one(values: Iterable[float], direction: Direction, unit: Unit) -> bool:
    """Whether people are told what these values lack to 1: more is better, and all are near it."""
    found = list(values)
    near = bool(found) and min(found) < 1 and all(_NEAR_ONE <= value <= 1 for value in found)
    return near and direction == "higher" and unit == "number"


def with_decimals(text: str) -> str:
    """A label with its fractions as decimals, as it was once written: `L-inf 0.03137`."""
    return re.sub(r"([0-9.]+)/255\b", lambda found: f"{float(found[1]) / 255:.4g}", text)


def select_labels(patterns: Sequence[str], labels: Iterable[str], what: str) -> list[str]:
    """Labels by name, wildcard or with their radius as a decimal, in the order given; raises BenchError for others."""
    names = {name: label for label in labels for name in (with_decimals(label), label)}
    return list(dict.fromkeys(names[name] for name in select_names(patterns, list(names), what)))


def shared_labels(key: MetricKey, shown: str) -> list[tuple[str, str]]:
    """How a label may stand under a heading that others share: heading, and what is left; the radius first."""
    radius = "" if key.eps is None else radius_text(key.eps)
    ends = [part for part in (radius, key.parts[-1], key.parts[0]) if part and shown.endswith(f" {part}")]
    found = [(shown.removesuffix(part).rstrip(), part) for part in ends]
    if key.subject and key.subject in shown:
        rest = re.sub(r"/(?= |$)", "", shown.replace(key.subject, "", 1))
        found.append((_words(*rest.split()), key.subject))
    return found


def _words(*parts: str) -> str:
    return " ".join(part for part in parts if part)
