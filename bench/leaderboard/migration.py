"""Older leaderboards and manifests as this version has them; only here is the old text of a metric's name taken apart.

Up to schema 3 a metric's name was text such as `saps/cosine/gradient`, `retrained_accuracy_30` or
`corruption_accuracy_3`, the column `attack` also held maps, corruptions and filters, nothing said which way a metric is
better, and radii had six digits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.core.files import read_regular
from bench.core.names import is_safe_name
from bench.leaderboard.metrics import Direction, Prominence, Unit

_SEARCH = re.compile(r"(.*), (\w+) search")
"""Version 2's device, where the search was in less than float32."""
_OWN_DIGESTS = ("model_sha256", "program_sha256", "suite_sha256", "data_sha256", "training_sha256")
_KEPT = (
    "run_id", "status", "reason", "started_at", "finished_at", "card", "suite", "data_source", "answers", "units",
)  # fmt: skip
_RESULT = ("metrics", "findings", "counters", "seconds", "examples_sha256")
"""Facts that version 2 has by name, what it has as it was, and what became the result."""
_ENDS_IN_NUMBER = re.compile(r"(.*)_(\d{1,3})")
_DIGITS = 6
_WITH_SUBJECT = frozenset({"prediction_kept", "insertion", "deletion"})
"""Names of the form metric/subject; those with more parts are measure by measure: metric/measure/subject."""
_WITH_MAP = frozenset({
    "roar_score", "kar_score", "roar_score_over_seeds", "kar_score_over_seeds", "kept_share", "manifold_distance",
    "manifold_distance_ratio", "manifold_auroc", "corruption_accuracy",
})  # fmt: skip
"""Of these, what stood in the column `attack` was a map, a filter or a corruption."""
_SHARES = frozenset({
    "clean_accuracy", "robust_accuracy", "union_accuracy", "prediction_kept", "robust_accuracy_after",
    "retrained_accuracy", "corruption_accuracy", "first_broken", "kept_share",
})  # fmt: skip
_HIGHER = frozenset({
    "clean_accuracy", "robust_accuracy", "union_accuracy", "stability", "stability_correct", "gradient_cosine", "saps",
    "saps_correct", "insertion", "roar_score", "kar_score", "corruption_accuracy", "median_distance",
})  # fmt: skip
_LOWER = frozenset({
    "hessian_ratio", "gradient_change_ratio", "taps", "taps_correct", "deletion", "randomisation"
})  # fmt: skip
_FAMILIES = frozenset({
    "stability", "stability_correct", "saps", "saps_correct", "taps", "taps_correct", "taps_clean", "agreement",
    "randomisation",
})  # fmt: skip

_HEADLINE_ATTACKS = {"stability": ("uniform",), "saps": ("frame", "worst"), "taps": ("frame",)}
_HEADLINE_SUBJECTS = {
    "insertion": ("gradient",), "deletion": ("gradient",), "roar_score": ("gradient", "input_x_gradient"),
    "kar_score": ("gradient", "input_x_gradient"), "manifold_distance": ("fooled_reference", "fooled_itself"),
    "corruption_accuracy": ("all", "contrast", "gaussian_blur", "gaussian_noise", "jpeg"), "median_distance": ("",),
}  # fmt: skip
_NAMED = ("metric", "subject", "attack", "direction", "unit", "prominence")


@lru_cache(maxsize=4096)
def migrated_name(metric: str, attack: str) -> tuple[str, str, str, Direction, Unit, Prominence]:
    """Metric, subject, attack, direction, unit and prominence of what an older version called so."""
    first, *rest = metric.split("/")
    numbered = _ENDS_IN_NUMBER.fullmatch(metric)
    subject = ""
    if first in _FAMILIES and len(rest) > 1:
        metric, subject = f"{first}/{rest[0]}", "/".join(rest[1:])
    elif first in _WITH_SUBJECT and rest:
        metric, subject = first, "/".join(rest)
    elif metric in _WITH_MAP:
        subject, attack = attack, ""
    elif numbered and numbered[1] in ("retrained_accuracy", "corruption_accuracy"):
        first = metric = numbered[1]
        subject, attack = f"{attack}/{numbered[2]}", ""
    return metric, subject, attack, _direction(first, rest), _unit(first, metric), _prominence(metric, subject, attack)


def _direction(first: str, rest: Sequence[str]) -> Direction:
    if "random_order" in rest or first not in _HIGHER | _LOWER:
        return "descriptive"
    turned = "centre_shift" in rest
    return "higher" if (first in _HIGHER) != turned else "lower"


def _unit(first: str, metric: str) -> Unit:
    """Of a stranger's metric, what is called an accuracy is a share."""
    return "share" if first in _SHARES or "accuracy" in metric else "number"


def _prominence(metric: str, subject: str, attack: str) -> Prominence:
    first, _, measure = metric.partition("/")
    if measure and first in _FAMILIES:
        if measure != ("spearman" if first in ("agreement", "randomisation") else "cosine"):
            return "detail"
        return "headline" if subject == "gradient" and attack in _HEADLINE_ATTACKS.get(first, ()) else "usual"
    return "headline" if subject in _HEADLINE_SUBJECTS.get(metric, ()) else "usual"


def migrated_rows(rows: Iterable[dict[str, str]], folder: Path) -> Iterator[dict[str, str]]:
    """Rows of a leaderboard.csv of schema 1 to 3, cell by cell; what schemas 1 and 2 lack is left to its default.

    Args:
        folder: of the leaderboard, whose evidence has the radii as the suites name them.
    """
    figures = _Figures(folder / "runs")
    for row in rows:
        if "precision" not in row and (found := _SEARCH.fullmatch(row["device"])):
            row["device"], row["precision"] = found.groups()
        row |= dict(zip(_NAMED, migrated_name(row["metric"], row["attack"]), strict=True))
        row["eps"] = figures.of(row)
        yield row


def migrated_manifest(old: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a manifest of version 1 as this version has it.

    What is missing or damaged there stays so, and is found where it is read.
    """
    facts, versions, executor = (_table(old.get(name)) for name in ("facts", "versions", "executor"))
    digests = [name for name in facts if name.endswith("_sha256") and name not in _OWN_DIGESTS]
    config = {name: value for name, value in facts.items() if name not in (*digests, "search_precision")}
    config["precision"] = facts.get("search_precision", "float32")
    # the masking probe's source decides what is noticed, and no number
    decides = {"transfer_source_sha256": "findings"}
    config["dependencies"] = {
        name.removesuffix("_sha256"): {"sha256": facts[name], "decides": decides.get(name, "metrics")}
        for name in digests
    } or None
    environment = {name: versions[name] for name in ("bench", "torch", "python", "commit") if name in versions} | {
        "device": old.get("device", ""),
        "batch_size": old.get("batch_size", 0),
        "executor": {"name": "local", "workers": 1, "threads": old.get("threads", 1), **executor},
    }
    result = {name: old[name] for name in _RESULT if name in old}
    if isinstance(metrics := result.get("metrics"), list):
        result["metrics"] = [_migrated_metric(one) for one in metrics]
    kept = {name: old[name] for name in _KEPT if name in old}
    return kept | {"config": config, "environment": environment, "result": result}


def _migrated_metric(metric: Any) -> Any:
    name, attack = _table(metric).get("metric"), _table(metric).get("attack", "")
    if not isinstance(name, str) or not isinstance(attack, str):
        return metric
    return metric | dict(zip(_NAMED, migrated_name(name, attack), strict=True))


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


class _Figures:
    """What a radius of six digits was rounded from: as a run of its suite has it, or else a number of 255ths."""

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._known: dict[tuple[str, str], dict[str, str]] = {}

    def of(self, row: Mapping[str, str]) -> str:
        text = row["eps"]
        if len(text.lstrip("0.").replace(".", "")) < _DIGITS - 1:  # a last digit may have been 0
            return text
        known = self._known.setdefault((row["suite_sha256"], row["dataset"]), {})
        if text not in known:
            known |= {text: _of_255ths(text), **self._of_run(row["run_id"])}
        return known[text]

    def _of_run(self, run_id: str) -> dict[str, str]:
        with suppress(OSError, ValueError, RecursionError, TypeError, LookupError, AttributeError):
            if not is_safe_name(run_id):
                return {}
            content = json.loads(read_regular(self._runs / run_id / "manifest.json"))
            metrics = content.get("result", content)["metrics"]
            radii = metrics["eps"] if isinstance(metrics, dict) else [one["eps"] for one in metrics]
            return {f"{eps:.{_DIGITS}g}": repr(eps) for eps in radii if isinstance(eps, float)}
        return {}


def _of_255ths(text: str) -> str:
    with suppress(ValueError, OverflowError):
        nearest = round(float(text) * 255) / 255
        return repr(nearest) if f"{nearest:.{_DIGITS}g}" == text else text
    return text
