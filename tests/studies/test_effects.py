from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from bench.studies import computations, effects
from bench.studies.computations import Computations, rank_gain
from bench.studies.effects import _bound, _correlation
from bench.studies.names import MetricName
from bench.studies.step_costs import StepCost
from bench.studies.study import Bound, Correlation, StepCosts
from bench.studies.values import MissingInputError, Values


def test_a_correlation_counts_models_and_its_sign() -> None:
    random = np.random.default_rng(0)
    first, second = np.arange(7.0), -np.arange(7.0) + random.normal(0, 1.5, 7)
    effect = _correlation(*of_models(first, second, sign="negative"))
    assert effect.value == pytest.approx(-float(spearmanr(first, second).statistic))
    assert effect.low < effect.value < effect.high and effect.count.startswith("7 models")
    with pytest.raises(MissingInputError, match="4 models have both metrics"):
        _correlation(*of_models(first[:4], second[:4], sign="negative"))


@pytest.mark.parametrize(
    ("order", "p"),
    [
        ([0, 1, 2, 3, 4, 6, 5], 14 / 5040),
        ([0, 1, 2, 3, 4, 5, 7, 6], 16 / 40320),
        ([0, 1, 2, 3, 4, 5, 6, 7], 2 / 40320),
    ],
)
def test_few_models_p_value_is_that_of_all_orders(order: list[int], p: float) -> None:
    """One best order and one neighbouring exchange for each gap between n models, either way round."""
    effect = _correlation(*of_models(np.arange(len(order)), np.array(order), sign="positive"))
    assert effect.p == pytest.approx(p)


def of_models(first: np.ndarray, second: np.ndarray, sign: Literal["positive", "negative"]) -> Any:
    models = [f"m{number}" for number in range(len(first))]
    rows = pd.DataFrame(
        [
            {"suite": "s", "model": model, "metric": metric, "subject": "", "attack": "", "norm": "", "eps": np.nan, "value": value,
             "ci_low": value, "ci_high": value, "n_examples": 10}
            for metric, values in (("a", first), ("b", second))
            for model, value in zip(models, values, strict=True)
        ]
    )  # fmt: skip
    claim = Correlation(
        id="c", text="", statistic="correlation", first=MetricName(suite="s", metric="a"),
        second=MetricName(suite="s", metric="b"), models=[*models, *("none",) * max(0, 3 - len(models))], sign=sign,
    )  # fmt: skip
    return Values(Path(), rows), claim


def test_the_bound_by_the_hessian_holds_for_a_smooth_net_and_fails_for_one_that_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of ReLU the Hessian is 0 wherever there is one, and the gradients turn all the same."""
    monkeypatch.setattr(computations, "EXAMPLES", 60)
    computed = Computations("fashion_mnist")
    smooth, kinked = (_bound(computed, bound(name, margin=0.95)) for name in ("lga", "standard"))
    assert (
        smooth.value == 1.0
        and "on 100.0 % of the images of lga" in smooth.reason
        and smooth.low < 1.0
        and smooth.p < 0.05
    )
    assert kinked.value < 0.05 and kinked.high < 0.95


def test_the_hessians_product_is_the_gradients_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computations, "EXAMPLES", 60)
    computed = Computations("fashion_mnist")
    distance, limit, product = computed.bound("lga", 0.5)
    clean, noisy = computed._gradients(computed._model("lga"), 0.5)
    change = (noisy - clean).norm(dim=1)
    assert np.median(np.abs(product / change.numpy() - 1)) < 0.02
    np.testing.assert_allclose(np.sqrt(limit), product / noisy.norm(dim=1).numpy(), rtol=1e-5)
    assert (distance < limit).all() and 2 < np.median(limit / distance) < 8  # by half the sum of both norms: 4 at most


def test_the_distance_follows_the_ratio_where_gradients_differ_in_size() -> None:
    random = np.random.default_rng(0)
    ratio, size = random.uniform(0.1, 1, 300), random.uniform(0.1, 10, 300)
    gain, error = rank_gain(np.stack([ratio**2, ratio**2, ratio * size]))
    assert gain > 0.2 and 0 < error < 0.1
    assert rank_gain(np.stack([ratio * size, ratio**2, ratio * size]))[0] < -0.2


def bound(name: str, margin: float) -> Bound:
    return Bound(id="b", text="", statistic="bound", model=name, radius=4.0, margin=margin)


def test_what_a_step_costs_less_than_another_is_a_share_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = {"lga": StepCost([1.0, 2.0, 1.1], 300), "hessian": StepCost([2.0, 4.0, 2.0], 400)}
    monkeypatch.setattr(effects, "step_costs", lambda recipes, *_: {name: costs[name] for name in recipes})
    computed = Computations("fashion_mnist")
    time, memory = (
        effects._step_costs(
            computed,
            StepCosts(id="c", text="", statistic="step_cost", better="lga", worse="hessian", quantity=quantity),
        )
        for quantity in ("seconds", "memory")
    )
    assert time.value == pytest.approx((0.5 + 0.5 + 0.45) / 3) and 0.4 < time.low < time.value and time.p < 0.01
    assert memory.value == 0.25 and "(counted)" in memory.reason


def test_of_a_pattern_count_the_seeds_that_were_run_and_names_must_all_be_there() -> None:
    rows = pd.DataFrame({"suite": ["roar", "main", "main", "main"], "model": ["a", "a", "a_seed1", "b"]})
    values = Values(Path(), rows)
    assert values.names("a+", "main") == ("a", "a_seed1") and values.names("a+", "main", "roar") == ("a",)
    assert values.names(["a", "a_seed1"], "roar") == ("a", "a_seed1"), "whose missing metric is then reported"
    assert values.names("b+", "roar") == ("b",)
