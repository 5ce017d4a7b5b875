from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, multinomial, ttest_1samp

from bench.leaderboard.statistics.intervals import (
    bootstrap,
    mean_intervals,
    median_interval,
    paired_share_interval,
    t_interval,
    wilson,
)


@given(st.integers(1, 2000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_the_interval_is_wilsons(case: tuple[int, int]) -> None:
    successes, count = case
    expected = binomtest(successes, count).proportion_ci(confidence_level=0.95, method="wilson")
    low, high = wilson(successes, count)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-14)
    assert 0.0 <= low <= successes / count <= high <= 1.0


@pytest.mark.parametrize("case", [(1, 0), (-1, 5), (6, 5), (0, 0)])
def test_what_is_no_share_has_no_interval(case: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="is no share"):
        wilson(*case)


@given(st.tuples(st.integers(0, 600), st.integers(0, 600), st.integers(0, 600)).filter(any))
def test_a_difference_of_shares_lies_within_its_interval_which_has_a_width(counts: tuple[int, int, int]) -> None:
    gained, lost, _ = counts
    low, high = paired_share_interval(gained, lost, sum(counts))
    assert -1.0 <= low <= (gained - lost) / sum(counts) <= high <= 1.0 and low < high
    assert paired_share_interval(lost, gained, sum(counts)) == pytest.approx((-high, -low))


@pytest.mark.parametrize("shares", [(0.001, 0.001), (0.1, 0.05), (0.3, 0.1), (0.45, 0.45), (0.6, 0.0)])
def test_intervals_of_a_difference_of_shares_cover_the_truth_as_often_as_they_say(shares: tuple[float, float]) -> None:
    up, down = shares
    counts = [(gained, lost) for gained in range(31) for lost in range(31 - gained)]
    chances = multinomial.pmf([[*pair, 30 - sum(pair)] for pair in counts], 30, [up, down, 1.0 - up - down])
    ends = np.array([paired_share_interval(*pair, 30) for pair in counts])
    assert chances[(ends[:, 0] <= up - down) & (up - down <= ends[:, 1])].sum() >= 0.94


def test_bootstrap_intervals_are_those_of_the_mean() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(3.0, 2.0, (400, 1))
    low, high = mean_intervals(values)
    half = 1.96 * values.std() / 20
    assert low[0] == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high[0] == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_bootstrap_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(1)
    low, high = mean_intervals(generator.exponential(1.0, (150, 300)))
    assert 0.90 <= float(((low <= 1) & (high >= 1)).mean()) <= 0.98


def test_quantities_of_one_table_are_resampled_together_and_missing_values_are_left_out() -> None:
    generator = np.random.default_rng(2)
    first = generator.random(250)
    table = np.stack([first, first + 1.0, np.where(first < 0.5, np.nan, first), np.full(250, np.nan)], axis=1)
    low, high = mean_intervals(table)
    assert low[1] - low[0] == pytest.approx(1.0) and high[1] - high[0] == pytest.approx(1.0)
    assert low[0] < first.mean() < low[2] < first[first >= 0.5].mean() < high[2]
    assert np.isnan([low[3], high[3]]).all()
    again = mean_intervals(table[:, :1])
    assert (again[0][0], again[1][0]) == pytest.approx((low[0], high[0]), abs=1e-12)


@pytest.mark.parametrize("count", [2, 3, 5, 10, 20, 99])
def test_the_interval_of_few_values_is_students_and_covers_as_often_as_it_says(count: int) -> None:
    table = np.random.default_rng(3).normal(0.7, 0.1, (count, 3000))
    low, high = mean_intervals(table)
    expected = ttest_1samp(table, 0.0).confidence_interval()
    assert np.allclose(low, expected.low, atol=1e-12) and np.allclose(high, expected.high, atol=1e-12)
    assert 0.935 < np.mean((low <= 0.7) & (high >= 0.7)) < 0.965


@pytest.mark.parametrize("count", [6, 7, 20, 99])
def test_the_interval_of_the_median_of_few_values_covers_at_least_as_often_as_it_says(count: int) -> None:
    draws = np.random.default_rng(4).exponential(1.0, (2000, count))
    bounds = np.array([median_interval(one) for one in draws])
    assert np.mean((bounds[:, 0] <= np.log(2)) & (bounds[:, 1] >= np.log(2))) >= 0.935


def test_too_few_values_have_no_interval() -> None:
    assert np.isnan(mean_intervals(np.array([[0.3]]))).all() and np.isnan(median_interval(np.arange(5.0))).all()


def test_a_constant_has_no_spread_and_of_nothing_there_is_no_mean() -> None:
    low, high = mean_intervals(np.full((7, 1), 0.25))
    assert low[0] == high[0] == 0.25
    with pytest.raises(ValueError, match="at least one example"):
        mean_intervals(np.empty((0, 1)))


def test_students_interval_of_a_few_values_is_scipys_and_of_one_the_value_itself() -> None:
    values = np.array([0.2, 0.5, 0.4, 0.9])
    expected = ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert t_interval(values) == pytest.approx((expected.low, expected.high))
    assert t_interval(values[:1]) == (0.2, 0.2)


def test_the_bootstrap_draws_each_sample_by_itself_and_the_same_every_time() -> None:
    generator = np.random.default_rng(1)
    first, second = generator.normal(1, 1, 300), generator.normal(0, 1, 500)

    def gap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return one.mean(1) - other.mean(1)

    low, high = bootstrap(gap, first, second)
    assert (low, high) == bootstrap(gap, first, second) != bootstrap(gap, first, second, seed=7)
    half = 1.96 * np.sqrt(first.var() / 300 + second.var() / 500)
    middle = first.mean() - second.mean()
    assert (low, high) == pytest.approx((middle - half, middle + half), abs=0.02)
