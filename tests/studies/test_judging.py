"""A claim needs the interval and the p-value on its side, each of which alone would let a wrong verdict through."""

from __future__ import annotations

import numpy as np
import pytest

from bench.studies.values import Effect
from tests.studies.test_claims import IMAGES, claim, images, judged, of, seeds

RISING = {"id": "rising", "text": "", "statistic": "ordering", "of": of("m"), "models": ["a", "b", "c"]}
COST = claim("cost", margin=-0.02)


def effect(low: float, high: float, p: float) -> Effect:
    return Effect((low + high) / 2, low, high, "", reason="", p=p, seeds=3)


UP = effect(0.1, 0.3, p=0.001)


@pytest.mark.parametrize(
    ("step", "verdict"),
    [
        (effect(0.05, 0.2, p=0.01), "supported"),
        (effect(-0.01, 0.1, p=0.01), "undecided"),  # flat by its interval
        (effect(0.01, 0.1, p=0.2), "undecided"),  # flat by its p-value
        (effect(-0.2, -0.05, p=0.01), "not supported"),
    ],
)
@pytest.mark.parametrize("flat_first", [True, False])
def test_every_step_of_an_ordering_has_to_rise(
    step: Effect, verdict: str, flat_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [step, UP] if flat_first else [UP, step]
    monkeypatch.setattr("bench.studies.claims.effects_of", lambda *_: steps)
    found = judged({("m", "a"): np.ones(IMAGES)}, RISING)["rising"]
    assert found.verdict == verdict and (found.effect, found.low) == (step.value, step.low)


def test_a_flat_step_after_one_that_rises_is_no_ordering() -> None:
    made = seeds("a", 0.4, 0.01, 0.0, -0.01) | seeds("b", 0.6, 0.01, 0.0, -0.01)
    made |= {("m", f"c_seed{number}"): made["m", f"b_seed{number}"] + images(0.0, spread=0.01) for number in range(3)}
    first, second, third = (f"{name}_seed*" for name in "abc")
    flat = judged(made, RISING | {"models": [first, second, third]})["rising"]
    assert flat.verdict == "undecided" and flat.effect == pytest.approx(0.0, abs=0.005)
    assert judged(made, RISING | {"models": [first, second]})["rising"].verdict == "supported"


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (effect(-0.018, -0.004, p=0.01), "supported"),  # a cost, and less than allowed
        (effect(-0.03, 0.01, p=0.01), "undecided"),
        (effect(-0.018, -0.004, p=0.2), "undecided"),
        (effect(-0.05, -0.03, p=0.01), "not supported"),
    ],
)
def test_a_cost_has_to_be_less_than_the_claim_allows(
    found: Effect, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.studies.claims.effects_of", lambda *_: [found])
    assert judged({("m", "a"): np.ones(IMAGES)}, COST)["cost"].verdict == verdict


@pytest.mark.parametrize(
    ("cost", "spread", "verdict"),
    [
        (0.0, 0.0005, "supported"),  # none at all
        (0.01, 0.0005, "supported"),
        (0.02, 0.005, "undecided"),
        (0.03, 0.0005, "not supported"),
    ],
)
def test_a_measured_cost_is_held_against_what_the_claim_allows(cost: float, spread: float, verdict: str) -> None:
    base = images(0.6)  # no image differs from another in what it costs, so that only the seeds spread
    made = {("m", f"b_seed{number}"): base for number in range(3)}
    made |= {("m", f"a_seed{number}"): base - cost + own for number, own in enumerate((-spread, 0.0, spread))}
    found = judged(made, COST)["cost"]
    assert found.verdict == verdict and found.low is not None and found.high is not None
    assert (found.low < -0.02, found.high < -0.02) == (verdict != "supported", verdict == "not supported")
