from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.core.errors import BenchError
from bench.leaderboard.metrics import ExampleValues, MetricKey
from bench.leaderboard.statistics.paired import (
    compare_values,
    holm,
    mcnemar,
    mean_p_value,
    rank_with_ties,
)


def values(numbers: object, metric: str = "robust_accuracy", ids: object = None) -> ExampleValues:
    array = np.asarray(numbers, dtype=np.float64)
    series = pd.Series(array, index=np.arange(len(array)) if ids is None else ids)
    return ExampleValues(MetricKey(metric), series, "lower" if metric == "taps" else "higher", "number")


def test_shares_are_compared_by_mcnemars_exact_test_and_the_flipped_examples_are_named() -> None:
    first = values([1, 1, 0, 0, 1, 0, 0, 0])
    second = values([1, 0, 1, 1, 1, 1, 1, 0])
    found = compare_values(first, second)
    assert found.test == "McNemar" and found.gained == (2, 3, 5, 6) and found.lost == (1,)
    assert found.p_value == pytest.approx(stats.binomtest(4, 5, 0.5).pvalue)
    assert found.difference == pytest.approx(3 / 8) and found.ci_low <= found.difference <= found.ci_high


def test_examples_are_paired_by_id_not_by_position() -> None:
    first = values([1, 0, 1], ids=[10, 11, 12])
    second = values([1, 1, 0], ids=[12, 10, 11])
    assert compare_values(first, second).p_value == 1.0 and compare_values(first, second).difference == 0.0
    with pytest.raises(BenchError, match="same examples"):
        compare_values(first, values([1, 0, 1], ids=[10, 11, 13]))


@given(st.lists(st.tuples(*[st.sampled_from([0.0, 0.5, 1.0, np.nan])] * 3), min_size=12, max_size=24))
def test_ranks_say_the_same_as_comparisons_of_all_pairs(rows: list[tuple[float, ...]]) -> None:
    named = {name: values([0.0, *(row[place] for row in rows)]) for place, name in enumerate("abc")}
    pairs = list(itertools.combinations(named, 2))
    found = [compare_values(named[first], named[second]) for first, second in pairs]
    ranks = dict.fromkeys(named, 1)
    for pair, one, adjusted in zip(pairs, found, holm([one.p_value for one in found]), strict=True):
        if adjusted <= 0.05 and one.difference:
            ranks[pair[(one.difference < 0 and 1) or 0]] += 1
    assert rank_with_ties(named) == ranks


def test_means_of_many_examples_are_compared_by_students_t() -> None:
    generator = np.random.default_rng(0)
    first = generator.normal(0.5, 0.1, 400)
    second = first + generator.normal(0.01, 0.08, 400)
    second[3] = np.nan
    found = compare_values(values(first, "stability"), values(second, "stability"))
    assert found.test == "t" and found.n_examples == 399 and found.gained == ()
    expected = stats.ttest_rel(np.delete(second, 3), np.delete(first, 3)).pvalue
    assert found.p_value == pytest.approx(expected, rel=1e-9)


def test_an_infinite_value_is_not_left_out_as_a_missing_one_is() -> None:
    generator = np.random.default_rng(0)
    some = generator.normal(0.5, 0.1, 100)
    infinite, finite = values(np.where(np.arange(100) < 50, np.inf, some), "lipschitz"), values(some - 0.3, "lipschitz")
    for refused in (lambda: compare_values(infinite, finite), lambda: rank_with_ties({"a": infinite, "b": finite})):
        with pytest.raises(BenchError, match="lipschitz is infinite for an example"):
            refused()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 10, 20])
@pytest.mark.parametrize("shape", ["normal", "heavy tails", "mostly nothing"])
def test_models_that_do_not_differ_are_told_apart_in_at_most_one_of_twenty_comparisons(shape: str, count: int) -> None:
    generator = np.random.default_rng(1)
    draws = generator.normal(size=(1500, count))
    if shape == "heavy tails":
        draws = generator.standard_cauchy((1500, count))
    if shape == "mostly nothing":
        draws = np.where(generator.random((1500, count)) < 0.3, np.sign(draws), 0.0)
    alarms = np.mean([mean_p_value(one)[0] <= 0.05 for one in draws])
    # three standard errors above 5 %
    assert alarms <= 0.067
    if shape == "normal" and count >= 10:
        assert alarms >= 0.033  # and the test still sees something


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=9))
def test_few_differences_are_tried_with_all_signs(differences: list[float]) -> None:
    array = np.array(differences)
    sums = [abs(sum(signs)) for signs in itertools.product(*((value, -value) for value in differences))]
    expected = np.mean([one >= abs(array.sum()) - 1e-9 * np.abs(array).sum() for one in sums])
    assert mean_p_value(array) == (pytest.approx(expected), "sign flips")


@given(st.integers(0, 500), st.integers(0, 500))
def test_mcnemars_p_value_is_the_exact_binomial_tests(gained: int, lost: int) -> None:
    expected = stats.binomtest(gained, gained + lost, 0.5).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-9)


def test_no_difference_at_all_is_p_one_and_the_same_everywhere_says_what_its_signs_can_say() -> None:
    assert mcnemar(0, 0) == 1.0 and mean_p_value(np.zeros(5))[0] == 1.0 and mean_p_value(np.full(1, 0.3))[0] == 1.0
    assert mean_p_value(np.ones(5))[0] == 2 * 0.5**5 and mean_p_value(np.ones(30))[0] == 2 * 0.5**30


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holms_adjustment_is_monotone_and_at_most_bonferronis(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    order = np.argsort(p_values, kind="stable")
    assert all(p <= q <= min(1.0, len(p_values) * p) + 1e-12 for p, q in zip(p_values, adjusted, strict=True))
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)


def test_holm_on_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_ranks_tie_where_the_test_does_not_separate_and_skip_afterwards() -> None:
    base = np.zeros(400)
    good, similar, bad = base.copy(), base.copy(), base.copy()
    good[:300], similar[:299], bad[:100] = 1, 1, 1
    similar[300] = 1
    ranks = rank_with_ties({"bad": values(bad), "good": values(good), "similar": values(similar)})
    assert ranks == {"good": 1, "similar": 1, "bad": 3}
    lower = rank_with_ties({"bad": values(good, "taps"), "good": values(bad, "taps")})
    assert lower == {"good": 1, "bad": 2}


def test_a_model_that_has_no_value_anywhere_is_left_unranked_and_the_others_are_ranked() -> None:
    good, bad, never = np.full(40, 0.9), np.full(40, 0.1), np.full(40, np.nan)
    ranks = rank_with_ties({"good": values(good), "never": values(never), "bad": values(bad)})
    assert ranks == {"good": 1, "bad": 2}
    first, second = (np.where(np.arange(40) < 20, *pair) for pair in ((good, never), (never, bad)))
    assert rank_with_ties({"first": values(first), "second": values(second)}) == {}
    assert rank_with_ties({"alone": values(good)}) == {"alone": 1}
