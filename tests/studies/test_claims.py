"""Made-up data of which each rule keeps a wrong verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter

from bench.studies.claims import Judgement, judge_all
from bench.studies.effects import Material
from bench.studies.names import MetricName
from bench.studies.study import Claim
from bench.studies.values import Effect, Values

RANDOM = np.random.default_rng(0)
IMAGES = 300


class Made(Values):
    """Values image by image, by metric and model."""

    def __init__(self, made: Mapping[tuple[str, str], np.ndarray]) -> None:
        fields = {"suite": "s", "subject": "", "attack": "", "norm": "", "eps": np.nan, "run_id": "r"}
        rows = [
            {**fields, "metric": metric, "model": model, "value": images.mean(), "n_examples": len(images),
             "ci_low": images.mean() - 0.01, "ci_high": images.mean() + 0.01}
            for (metric, model), images in made.items()
        ]  # fmt: skip
        super().__init__(Path(), pd.DataFrame(rows))
        self.made = made

    def _of_run(self, of: MetricName, model: str) -> pd.DataFrame | None:
        return pd.DataFrame(self.made[of.metric, model])


def images(mean: float, seed_effect: float = 0.0, spread: float = 0.1) -> np.ndarray:
    return RANDOM.normal(mean + seed_effect, spread, IMAGES)


def seeds(name: str, mean: float, *effects: float, metric: str = "m") -> dict[tuple[str, str], np.ndarray]:
    return {(metric, f"{name}_seed{number}"): images(mean, effect) for number, effect in enumerate(effects)}


def of(metric: str, **more: Any) -> dict[str, Any]:
    return {"suite": "s", "metric": metric, **more}


def claim(name: str, better: str | list[str] = "a_seed*", worse: str | list[str] = "b_seed*", **more: Any) -> Any:
    fields = {"id": name, "text": "", "statistic": "difference", "of": of("m"), "better": better, "worse": worse}
    return fields | more


def judged(made: Mapping[tuple[str, str], np.ndarray], *claims: Any, trials: Any = None) -> dict[str, Judgement]:
    computed = SimpleNamespace(scaling=lambda claim: Effect(0.01, 0.01, 0.01, count="1", reason="identity"))
    parsed = TypeAdapter(list[Claim]).validate_python(list(claims))
    material = Material(Made(made), {"s": "s"}, None, computed, trials=trials or {})  # type: ignore[arg-type]
    return {one.claim.id: one for one in judge_all(parsed, material, {})}


CLEAR_SEEDS = [f"{side}_seed{number}" for side in "ab" for number in range(3)]
CLEAR = seeds("a", 0.6, 0.0, 0.01, -0.01) | seeds("b", 0.4, 0.0, 0.01, -0.01)


def test_a_failed_control_leaves_what_rests_on_it_undecided_and_what_rests_on_that() -> None:
    found = judged(
        CLEAR,
        claim("control", better="b_seed*", worse="a_seed*"),
        claim("resting", gates=["control"]),
        claim("further", gates=["resting"]),
        claim("free"),
    )
    assert {name: one.verdict for name, one in found.items()} == {
        "control": "not supported",
        "resting": "undecided (control failed)",
        "further": "undecided (control failed)",
        "free": "supported",
    }
    assert found["resting"].gates == "control: not supported" and found["resting"].effect is not None


def test_a_control_that_holds_only_suggests_leaves_a_suggestion() -> None:
    found = judged(CLEAR, claim("control", better="a_seed0"), claim("resting", gates=["control"]))
    assert found["control"].verdict == found["resting"].verdict == "suggestive"


def test_fewer_than_three_seeds_a_side_are_a_suggestion() -> None:
    found = judged(CLEAR, claim("three"), claim("two", worse=["b_seed0", "b_seed1"]), claim("one", better="a_seed0"))
    assert [one.verdict for one in found.values()] == ["supported", "suggestive", "suggestive"]
    assert [one.seeds for one in found.values()] == [3, 2, 1]
    assert "3 against 2 seeds" in found["two"].count and "fewer than 3 training seeds" in found["two"].reason


def test_a_claim_is_not_refuted_by_what_could_not_support_it() -> None:
    turned = claim("turned", better="b_seed*", worse="a_seed0")
    control = claim("control", better="a_seed0")
    resting = claim("resting", better="b_seed*", worse="a_seed*", gates=["control"])
    found = judged(CLEAR, turned, control, resting, claim("free", better="b_seed*", worse="a_seed*"))
    assert [one.verdict for one in found.values()] == ["undecided", "suggestive", "undecided", "not supported"]
    assert "the opposite is at best suggestive: fewer than 3 training seeds" in found["turned"].reason


def test_of_several_steps_the_least_certain_is_shown() -> None:
    made = seeds("a", 0.4, 0.04, 0.0, -0.04) | seeds("b", 0.5, 0.04, 0.0, -0.04)
    made |= {("m", f"c_seed{n}"): made["m", f"b_seed{n}"] + images(0.05, spread=0.01) for n in range(3)}
    models = ["c_seed*", "b_seed*", "a_seed*"][::-1]
    rising = {"id": "rising", "text": "", "statistic": "ordering", "of": of("m"), "models": models}
    first, second = (claim(f"{one}{two}", better=f"{two}_seed*", worse=f"{one}_seed*") for one, two in ("ab", "bc"))
    found = judged(made, rising)["rising"]
    least = max((judged(made, step)[step["id"]] for step in (first, second)), key=lambda one: one.p or 0)
    assert (found.effect, found.low, found.p) == (least.effect, least.low, least.p)


def test_one_image_decides_nothing() -> None:
    made = {key: values[:1] for key, values in CLEAR.items()}
    found = judged(made, claim("one"), claim("null", kind="null", margin=0.5))
    assert [one.verdict for one in found.values()] == ["undecided"] * 2 and "one image" in found["one"].reason


def test_five_models_in_one_order_are_no_certainty() -> None:
    """By chance that is one order of 120, so p is 1/60 both ways."""
    order = [(name, rank, seed) for name in "xy" for rank in range(5) for seed in range(3)]
    made = {(name, f"r{rank}_seed{seed}"): np.full(IMAGES, rank + seed / 100) for name, rank, seed in order}
    ranks = {"id": "ranks", "text": "", "statistic": "correlation", "first": of("x"), "second": of("y")}
    ranks |= {"models": [f"r{rank}_seed*" for rank in range(5)], "sign": "positive"}
    found = judged(made, ranks, *[claim(f"absent{number}") for number in range(5)])["ranks"]
    assert found.effect is not None and found.low is not None and found.high is not None and found.p is not None
    assert found.low < 0.5 < found.effect <= found.high and found.p >= 6 / 60 and found.verdict == "undecided"


def test_a_difference_within_the_spread_of_the_seeds_is_undecided() -> None:
    made = seeds("a", 0.5, 0.05, 0.0, -0.04) | seeds("b", 0.47, -0.05, 0.05, 0.0)
    found = judged(made, claim("groups"), claim("lucky", better="a_seed0", worse="b_seed0"))
    assert found["groups"].verdict == "undecided" and found["lucky"].verdict == "suggestive"


def test_equal_to_chance_is_not_equal_to_another_net_that_is_far_above_it() -> None:
    """Masks that give the class away as random pixels do would pass as leaking nothing."""
    made = seeds("mask", 0.8, 0.0, 0.01, -0.01) | seeds("random", 0.8, 0.0, 0.01, -0.01)
    made |= seeds("blind", 0.1, 0.001, 0.0, -0.001)
    null = {"kind": "null", "margin": 0.05}
    each_other = claim("each_other", better="mask_seed*", worse="random_seed*", **null)
    chance = claim("chance", better="mask_seed*", of=of("m", minus=0.1), **null)
    blind = claim("blind", better="blind_seed*", of=of("m", minus=0.1), **null)
    for one in (chance, blind):
        del one["worse"]
    found = judged(made, each_other, chance, blind)
    assert [one.verdict for one in found.values()] == ["supported", "not supported", "supported"]
    assert found["chance"].effect == pytest.approx(0.7, abs=0.02) and "m less 0.1 of mask" in found["chance"].reason


def test_21_images_against_10_are_undecided() -> None:
    first, second = np.r_[np.ones(21), np.zeros(979)], np.r_[np.zeros(21), np.ones(10), np.zeros(969)]
    found = judged({("m", "a"): first, ("m", "b"): second}, claim("share", better="a", worse="b"))["share"]
    assert found.verdict == "undecided" and found.p == pytest.approx(0.0708, abs=1e-4) and "McNemar" in found.reason


def test_one_lucky_claim_of_many_is_undecided() -> None:
    lucky = np.r_[np.ones(9), -np.ones(1), np.zeros(290)]  # p = .021
    made = {("m", "a"): (lucky > 0).astype(float), ("m", "b"): (lucky < 0).astype(float)}
    one = claim("one", better="a", worse="b")
    assert judged(made, one)["one"].verdict == "suggestive"
    others = [claim(f"other{number}", better="a", worse="a") for number in range(5)]
    among = judged(made, one, *others)["one"]
    assert among.verdict == "undecided" and among.p == pytest.approx(6 * 0.0215, abs=1e-3)
    absent = [claim(f"absent{number}", better="nowhere") for number in range(5)]
    assert judged(made, one, *absent)["one"].p == among.p


def test_no_sign_of_a_difference_is_no_sign_of_none() -> None:
    wide = seeds("a", 0.5, 0.05, 0.0, -0.05) | seeds("b", 0.5, -0.05, 0.05, 0.0)
    narrow = {key: images(0.5, spread=0.01) for key in wide}
    null = claim("null", kind="null", margin=0.02)
    assert judged(wide, claim("difference"))["difference"].verdict == "undecided"
    assert judged(wide, null)["null"].verdict == "undecided"
    assert judged(narrow, null)["null"].verdict == "supported"
    assert judged(CLEAR, null)["null"].verdict == "not supported"


def test_what_is_no_number_supports_nothing() -> None:
    """Medians of nets that no image was found of are infinite, and infinitely far from nothing."""
    made = {(name, model): np.full(IMAGES, np.inf) for name in ("m", "n") for model in CLEAR_SEEDS}
    made |= {("k", model): np.full(IMAGES, 1.0) for model in CLEAR_SEEDS}
    null = claim("null", kind="null", margin=0.05)
    same = {"statistic": "correlation", "first": of("k"), "second": of("k"), "models": CLEAR_SEEDS, "sign": "positive"}
    with pytest.warns(match="input array is constant"):
        found = judged(made, claim("more"), null, {"id": "same", "text": "", **same})
    assert [one.verdict for one in found.values()] == ["undecided"] * 3
    assert [one.effect for one in found.values()] == [None] * 3 and found["null"].p == 1


def test_a_gain_under_heavy_perturbation_is_not_more_than_under_light() -> None:
    made = CLEAR | {("light", model): images(values.mean() + 0.1) for (_, model), values in CLEAR.items()}
    light = {"of": of("light"), "better": "a_seed*", "worse": "b_seed*"}
    more = claim("more", kind="difference_of_differences", than=light)
    found = judged(made, claim("heavy"), more)
    assert found["heavy"].verdict == "supported" and found["more"].verdict == "undecided"
    made |= {("light", f"a_seed{number}"): images(0.45) for number in range(3)}
    assert judged(made, more)["more"].verdict == "supported"


def test_movement_is_from_the_models_own_clean_maps() -> None:
    """The second method's maps are less like the target, before and after, and move towards it more."""
    made: dict[tuple[str, str], np.ndarray] = {}
    for name, clean, moved in (("a", 0.5, 0.03), ("b", 0.44, 0.06)):
        for number in range(3):
            start = images(clean)
            made["clean", f"{name}_seed{number}"], made["m", f"{name}_seed{number}"] = start, start + moved
    level = claim("level", better="b_seed*", worse="a_seed*")
    movement = level | {"id": "movement", "of": of("m", minus=of("clean"))}
    found = judged(made, level, movement)
    assert found["level"].verdict == "not supported" and found["movement"].verdict == "supported"
    assert found["movement"].effect == pytest.approx(0.03)


def test_a_share_less_a_number_is_judged_as_the_share() -> None:
    """Twelve images are too few to say that an accuracy is above .95, or that it is above .85 less .1."""
    made = {("m", f"a_seed{number}"): np.ones(12) for number in range(3)}
    less = claim("less", worse=None, of=of("m", minus=0.1), margin=0.85)
    found = judged(made, claim("plain", worse=None, margin=0.95), less)
    assert found["plain"].verdict == found["less"].verdict == "undecided" and found["less"].low < 0.85


def test_identities_are_checks_and_make_no_claim_harder() -> None:
    check = {
        "id": "identity", "text": "", "statistic": "scale_invariance", "model": "a", "criterion": "l2", "factor": 0.1,
        "expected": 0.01,
    }  # fmt: skip
    found = judged(CLEAR, check, claim("claim"))
    assert found["identity"].verdict == "passed" and found["identity"].p is None
    assert found["claim"].p == judged(CLEAR, claim("claim"))["claim"].p


def test_what_a_step_costs_here_is_a_check_and_changes_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = Effect(0.05, 0.01, 0.09, "15 steps", reason="ms here", p=1.0, seeds=15)
    monkeypatch.setattr("bench.studies.effects._step_costs", lambda *_: timed)
    cost = {"id": "cost", "text": "", "statistic": "step_cost", "better": "lga", "worse": "hessian"}
    found = judged(CLEAR, cost | {"quantity": "seconds"}, claim("claim"))
    assert (found["cost"].verdict, found["cost"].p, found["cost"].seeds) == ("passed", None, None)
    assert found["claim"].p == judged(CLEAR, claim("claim"))["claim"].p


def method(name: str, points: Sequence[tuple[float, float]], made: dict[Any, Any]) -> dict[str, Any]:
    for strength, (x, y) in enumerate(points):
        for metric, mean in (("x", x), ("m", y)):
            made |= seeds(f"{name}{strength}", mean, 0.0, 0.003, -0.003, metric=metric)
    return {"name": name, "tuning": name, "strengths": [f"{name}{strength}_seed*" for strength in range(len(points))]}


def test_methods_are_compared_at_equal_cost_and_equal_tuning() -> None:
    """At their own settings b's strongest beats a's by .2; at equal x a is above."""
    made: dict[Any, Any] = {}
    methods = {
        "better": method("a", [(0.9, 0.25), (0.85, 0.35)], made),
        "worse": method("b", [(0.92, 0.1), (0.8, 0.35), (0.7, 0.55)], made),
    }
    front = {"id": "front", "text": "", "statistic": "front", "of": of("m"), "matched": of("x"), **methods}
    single = claim("single", better="b2_seed*", worse="a1_seed*")
    found = judged(made, front, single, trials={"a": 4, "b": 4})
    assert found["single"].verdict == found["front"].verdict == "supported"
    assert "tuning trials: 4 of a against 4 of b" in found["front"].reason
    tuned = judged(made, front, trials={"a": 9, "b": 1})["front"]
    assert tuned.verdict == "suggestive" and "more tuning trials" in tuned.reason
    assert judged(made, front, trials={"a": 9})["front"].verdict == "suggestive"  # nobody knows what b had
    lone = front | {"better": methods["better"] | {"strengths": ["a0_seed0", "a1_seed0"]}}
    lone = judged(made, lone, trials={"a": 4, "b": 4})["front"]
    assert lone.verdict == "suggestive" and lone.seeds == 1 and "fewer than 3 training seeds" in lone.reason
    turned = front | {"better": methods["worse"], "worse": methods["better"]}
    assert judged(made, turned, trials={"a": 4, "b": 4})["front"].verdict == "not supported"
    beaten = judged(made, turned, trials={"a": 9, "b": 1})["front"]
    assert beaten.verdict == "undecided" and "the opposite is at best suggestive: a had more" in beaten.reason


def test_a_group_that_has_a_model_of_no_run_is_undecided() -> None:
    found = judged(CLEAR, claim("absent", better=["a_seed0", "a_seed7"]), claim("none", better="c_seed*"))
    assert found["absent"].verdict == found["none"].verdict == "undecided"
    assert "no m of a_seed7" in found["absent"].reason and "no model is called c_seed*" in found["none"].reason
