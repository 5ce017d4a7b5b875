"""What kinds of metrics there are: which way is better, and how one is printed."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from bench.core.errors import BenchError
from bench.core.plugins import load_plugin, plugin_names

logger = logging.getLogger(__name__)

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True, slots=True)
class MetricKind:
    """One kind of metric.

    Attributes:
        better: which way a model is better; `neither` where the number describes and does not judge.
        percent: a share, printed in per cent; anything else is printed as it is.
    """

    better: Better
    percent: bool


_KINDS: dict[str, MetricKind] = {
    "clean_accuracy": MetricKind("higher", True),
    "robust_accuracy": MetricKind("higher", True),
    "union_accuracy": MetricKind("higher", True),
    "prediction_kept": MetricKind("neither", True),
    "stability": MetricKind("higher", False),
    "stability_correct": MetricKind("higher", False),
    "gradient_norm": MetricKind("neither", False),
    "hessian_change": MetricKind("neither", False),
    "hessian_ratio": MetricKind("lower", False),
    "gradient_change": MetricKind("neither", False),
    "gradient_change_ratio": MetricKind("lower", False),
    "gradient_cosine": MetricKind("higher", False),
    "saps": MetricKind("higher", False),
    "saps_correct": MetricKind("higher", False),
    "taps": MetricKind("lower", False),
    "taps_correct": MetricKind("lower", False),
    "taps_clean": MetricKind("neither", False),
    "insertion": MetricKind("higher", False),
    "deletion": MetricKind("lower", False),
    "agreement": MetricKind("neither", False),
    "randomisation": MetricKind("lower", False),
    "robust_accuracy_after": MetricKind("neither", True),
    "roar_score": MetricKind("higher", False),
    "kar_score": MetricKind("higher", False),
    "retrained_accuracy": MetricKind("neither", True),
    "corruption_accuracy": MetricKind("higher", True),
    "first_broken": MetricKind("neither", True),
    "median_distance": MetricKind("higher", False),
    "kept_share": MetricKind("neither", True),
    "explained_variance": MetricKind("neither", False),
}
_REMOVED_SHARE = re.compile(r"_\d+$")
"""The end of `retrained_accuracy_30`: per cent of the pixels that were removed."""
_DISTANCES = frozenset({"centre_shift"})


def metric_kind(metric: str) -> MetricKind:
    """The kind of a metric, by the part of its name before the first `/`; an unknown one neither judges nor is a share.

    A plug-in says what its own metrics are: in `bench.metrics`, under the metric's name, it announces a `MetricKind`.
    Distances among the measures of similarity turn the direction round; a control judges no model.
    """
    first, *rest = metric.split("/")
    kind = _known_kind(_REMOVED_SHARE.sub("", first)) or MetricKind("neither", False)
    if "random_order" in rest:
        return MetricKind("neither", kind.percent)
    if _DISTANCES & set(rest) and kind.better != "neither":
        return MetricKind("lower" if kind.better == "higher" else "higher", kind.percent)
    return kind


def is_known(metric: str) -> bool:
    """Whether this package or a plug-in says what kind of metric it is."""
    return _known_kind(_REMOVED_SHARE.sub("", metric.split("/")[0])) is not None


@lru_cache(maxsize=1024)
def _known_kind(name: str) -> MetricKind | None:
    if name in _KINDS or name not in plugin_names("bench.metrics"):
        return _KINDS.get(name)
    try:
        found = load_plugin("bench.metrics", name)
    except BenchError as error:  # a broken plug-in must not hide the rows of the others
        logger.warning("%s", error)
        return None
    if isinstance(found, MetricKind):
        return found
    logger.warning("the plug-in %r in bench.metrics is no bench.leaderboard.kinds.MetricKind; it is left out", name)
    return None
