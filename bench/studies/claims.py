"""Judging a study's claims: supported, not supported or undecided, from rows of the leaderboard and small computations.

A claim is supported when the whole 95 % interval of its effect lies on its side, not supported when the whole interval
lies on the other, else undecided. No claim is decided without an interval or on models that are not there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from bench.core.errors import BenchError
from bench.leaderboard.labels import full_label
from bench.leaderboard.metrics import keys_of
from bench.leaderboard.statistics.intervals import t_interval
from bench.studies.pairs import Pairs
from bench.studies.study import Bound, Claim, Correlation, Difference, MetricName, Ordering, Tilt
from bench.studies.study import ScaleInvariance as ScaleInvarianceClaim
from bench.studies.study import Stability as StabilityClaim
from bench.training.boundary_tilt import TiltStudy

Verdict = Literal["supported", "not supported", "undecided"]
_LEAST_MODELS = 5
"""Fewer models than this decide no correlation: three ranks agree by chance one time in six."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A claim judged; `effect` and the interval are in the statistic's unit, None where nothing could be computed."""

    claim: Claim
    verdict: Verdict
    reason: str
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    count: str = ""


@dataclass(frozen=True, slots=True)
class Effect:
    """An effect with its 95 % interval and what it was taken from."""

    value: float
    low: float
    high: float
    count: str
    reason: str


class MissingInputError(BenchError):
    """Something that a claim needs is not there."""


Computed = Callable[[StabilityClaim | ScaleInvarianceClaim | Bound], tuple[Effect, float]]
"""Computes an effect from the models themselves; the number is the margin that decides."""


@dataclass(frozen=True, slots=True)
class Material:
    """What claims are judged from.

    Attributes:
        rows: the study's own rows, one run a model and suite, suites under the claims' names.
        pairs: differences image by image, where the evidence lies beside the rows.
        suites: the claims' names of the suites -> the suites.
        tilt: the tilting experiment, where it was run.
    """

    rows: pd.DataFrame
    pairs: Pairs
    suites: Mapping[str, str]
    tilt: TiltStudy | None
    computed: Computed


def judge(claim: Claim, material: Material, left_out: Mapping[str, str]) -> Judgement:
    """Decide one claim; `left_out` says, by name, what the plan left out and why."""
    try:
        effects, margin = _effects(claim, material)
    except MissingInputError as missing:
        words = {material.suites.get(word, word) for word in str(missing).split()}
        reasons = [f"{name}: {reason}" for name, reason in left_out.items() if name.split()[-1] in words]
        return Judgement(claim, "undecided", f"{missing}" + (f" ({'; '.join(reasons)})" if reasons else ""))
    weakest = min(effects, key=lambda effect: effect.value)
    verdict: Verdict = "undecided"
    if all(effect.low > margin for effect in effects):
        verdict = "supported"
    elif any(effect.high <= margin for effect in effects):
        verdict = "not supported"
        weakest = min(effects, key=lambda effect: effect.high)
    return Judgement(
        claim, verdict, weakest.reason, weakest.value, low=weakest.low, high=weakest.high, count=weakest.count
    )


def _effects(claim: Claim, material: Material) -> tuple[list[Effect], float]:
    if isinstance(claim, Difference):
        against = claim.against or claim.of
        return [_difference(material, claim.of, claim.better, against, worse=claim.worse)], claim.margin
    if isinstance(claim, Ordering):
        pairs = zip(claim.models[1:], claim.models[:-1], strict=True)
        return [_difference(material, claim.of, better, claim.of, worse=worse) for better, worse in pairs], 0.0
    if isinstance(claim, Correlation):
        return [_correlation(material.rows, claim)], 0.0
    if isinstance(claim, Tilt):
        return _tilt(material.tilt, claim.quantity), 0.0
    effect, margin = material.computed(claim)
    return [effect], margin


def value_of(rows: pd.DataFrame, of: MetricName, model: str) -> tuple[float, float, float, int]:
    """Value, interval and n of a model's metric; raises MissingInputError."""
    own = rows[(rows["suite"] == of.suite) & (rows["model"] == model)]
    found = own[[key == of.key for key in keys_of(own)]]
    if found.empty:
        raise MissingInputError(f"no {full_label(of.key)} of {model} under {of.suite}")
    row = found.iloc[-1]
    return float(row["value"]), float(row["ci_low"]), float(row["ci_high"]), int(row["n_examples"])


def _difference(material: Material, of: MetricName, better: str, against: MetricName, worse: str) -> Effect:
    """Image by image where the evidence is there; else of two values with intervals.

    The latter by MOVER (Zou and Donner 2008), as if independent, which is cautious on shared images.
    """
    first, first_low, first_high, count = value_of(material.rows, of, better)
    second, second_low, second_high, other = value_of(material.rows, against, worse)
    label, other_label = (full_label(one.key) for one in (of, against))
    reason = f"{label} of {better} {first:.4f}, " + ("" if other_label == label else f"{other_label} of ")
    reason += f"{worse} {second:.4f}"
    paired = material.pairs.difference(of, better, against, worse)
    if paired is not None:
        return Effect(*paired, reason)
    gap = first - second
    low = gap - float(np.hypot(first - first_low, second_high - second))
    high = gap + float(np.hypot(first_high - first, second - second_low))
    return Effect(gap, low, high, f"{min(count, other)} images, 1 seed a model, not in pairs", reason=reason)


def _correlation(rows: pd.DataFrame, claim: Correlation) -> Effect:
    from scipy.stats import spearmanr

    points = []
    for model in claim.models:
        try:
            points.append((value_of(rows, claim.first, model)[0], value_of(rows, claim.second, model)[0]))
        except MissingInputError:
            continue
    if len(points) < _LEAST_MODELS:
        raise MissingInputError(
            f"{len(points)} models have both metrics, and a correlation needs at least {_LEAST_MODELS}"
        )
    first, second = zip(*points, strict=True)
    sign = 1.0 if claim.sign == "positive" else -1.0
    value = sign * float(spearmanr(first, second).statistic)
    # Fisher's z with the variance of Bonett and Wright 2000; models share data and baselines, so it is still too narrow
    half = 1.96 * np.sqrt((1 + value**2 / 2) / max(1, len(points) - 3))
    center = np.arctanh(np.clip(value, -0.9999, 0.9999))
    return Effect(
        value, float(np.tanh(center - half)), float(np.tanh(center + half)), f"{len(points)} models, 1 seed each",
        reason=f"Spearman {sign * value:+.2f}, counted towards the claim; models share data and baselines, the "
        "interval takes them as independent",
    )  # fmt: skip


def _tilt(tilt: TiltStudy | None, quantity: str) -> list[Effect]:
    if tilt is None:
        raise MissingInputError("the tilting experiment was not run")
    values = {
        strength: np.array([getattr(net, quantity) for net in tilt.nets if net.strength == strength])
        for strength in ("standard", "weak", "strong")
    }
    effects = []
    for weaker, stronger in (("standard", "weak"), ("weak", "strong")):
        gaps = values[weaker] - values[stronger]
        low, high = t_interval(gaps)
        means = f"{weaker} {values[weaker].mean():.3g}, {stronger} {values[stronger].mean():.3g}"
        effects.append(
            Effect(float(gaps.mean()), low, high, f"{len(gaps)} paired seeds", reason=f"{quantity}: {means}")
        )
    return effects
