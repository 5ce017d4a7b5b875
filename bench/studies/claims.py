"""Judging a study's claims together: controls, training seeds and the number of claims count.

A claim is supported when the whole 95 % interval of its effect lies on its side and its p-value, adjusted by Holm over
the study's claims, is at most 5 %; not supported when the same holds of the other side; else undecided. With fewer than
three training seeds a side it is at best suggestive, and its opposite undecided. What rests on a control that failed is
undecided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from bench.core.errors import BenchError
from bench.leaderboard.statistics.paired import ALPHA, holm
from bench.studies.effects import Material, effects_of
from bench.studies.study import Claim
from bench.studies.values import Effect, MissingInputError

Verdict = Literal[
    "supported", "suggestive", "not supported", "undecided", "undecided (control failed)", "passed", "failed"
]  # fmt: skip
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""The last two are of checks of the implementation."""
_ENOUGH_SEEDS = 3


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
    seeds: int | None = None
    p: float | None = None
    """Adjusted over the study's claims; None of a check."""
    gates: str = ""
    """The verdicts of what it rests on."""


def judge_all(claims: Sequence[Claim], material: Material, left_out: Mapping[str, str]) -> list[Judgement]:
    """Judge a study's claims; `left_out` says, by name, what the plan left out and why.

    A claim whose input is missing counts in Holm's correction all the same: it makes no other claim easier.
    """
    found: list[list[Effect] | str] = []
    for claim in claims:
        try:
            found.append(_finite(effects_of(claim, material)))
        except BenchError as missing:
            found.append(_missing(missing, material, left_out))
    p_values = {
        claim.id: 1.0 if isinstance(effects, str) else _p_value(claim, effects)
        for claim, effects in zip(claims, found, strict=True)
        if claim.kind != "check"
    }
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    judged = zip(claims, found, strict=True)
    alone = {claim.id: _judge(claim, effects, adjusted.get(claim.id)) for claim, effects in judged}
    gated: dict[str, Judgement] = {}
    for claim in claims:
        _gated(claim.id, alone, gated)
    return [gated[claim.id] for claim in claims]


def _finite(effects: list[Effect]) -> list[Effect]:
    """The effects; raises MissingInputError where one or its interval is no number, as of too few images."""
    for effect in effects:
        if not all(map(math.isfinite, (effect.value, effect.low, effect.high))):
            raise MissingInputError(f"no finite effect with an interval: {effect.reason}")
    return effects


def _missing(missing: BenchError, material: Material, left_out: Mapping[str, str]) -> str:
    words = {material.suites.get(word, word) for word in str(missing).split()}
    reasons = [f"{name}: {reason}" for name, reason in left_out.items() if name.split()[-1] in words]
    return f"{missing}" + (f" ({'; '.join(reasons)})" if reasons else "")


def _against(claim: Claim, effects: Sequence[Effect]) -> list[Effect]:
    """The effects whose whole interval contradicts the claim."""
    if claim.kind == "null":
        return [effect for effect in effects if effect.low > claim.margin or effect.high < -claim.margin]
    return [effect for effect in effects if effect.high < claim.margin]


def _p_value(claim: Claim, effects: Sequence[Effect]) -> float:
    """Of a claim that needs all of its effects; of one step that contradicts it, times the number of steps."""
    if against := _against(claim, effects):
        return min(1.0, len(effects) * min(effect.p for effect in against))
    return max(effect.p for effect in effects)


def _judge(claim: Claim, effects: list[Effect] | str, p: float | None) -> Judgement:
    if isinstance(effects, str):
        return Judgement(claim, "undecided", effects, p=p)
    against = _against(claim, effects)
    shown = max(effects, key=lambda effect: (effect.p, -effect.value))  # the least certain
    if against:
        shown = min(against, key=lambda effect: (effect.p, effect.value))
    if claim.kind == "null":
        inside = all(-claim.margin < effect.low and effect.high < claim.margin for effect in effects)
    else:
        inside = all(effect.low > claim.margin for effect in effects)
    seeds, reason = min(effect.seeds for effect in effects), shown.reason
    verdict: Verdict = "undecided"
    if (against or inside) and (p is None or p <= ALPHA):
        few = f"fewer than {_ENOUGH_SEEDS} training seeds a side" * (seeds < _ENOUGH_SEEDS)
        cap = (shown.cap_against if against else shown.cap) or few
        if claim.kind == "check":
            verdict = "failed" if against else "passed"
        elif cap:
            verdict = "undecided" if against else "suggestive"
            reason += f"; {'the opposite is ' * bool(against)}at best suggestive: {cap}"
        else:
            verdict = "not supported" if against else "supported"
    return Judgement(
        claim, verdict, reason, shown.value, low=shown.low, high=shown.high, count=shown.count,
        seeds=None if claim.kind == "check" else seeds, p=p,
    )  # fmt: skip


def _gated(name: str, alone: Mapping[str, Judgement], gated: dict[str, Judgement]) -> Judgement:
    """The judgement after those that it rests on, whose own count."""
    if name in gated:
        return gated[name]
    judgement = alone[name]
    gates = {gate: _gated(gate, alone, gated).verdict for gate in judgement.claim.gates}
    verdict = judgement.verdict
    if any(word not in ("supported", "suggestive", "passed") for word in gates.values()):
        verdict = "undecided (control failed)"
    elif "suggestive" in gates.values() and verdict in ("supported", "not supported"):
        verdict = "suggestive" if verdict == "supported" else "undecided"
    text = "; ".join(f"{gate}: {word}" for gate, word in gates.items())
    gated[name] = replace(judgement, verdict=verdict, gates=text)
    return gated[name]
