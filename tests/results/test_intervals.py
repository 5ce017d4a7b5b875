from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from bench.results.intervals import bootstrap_means, wilson


@settings(deadline=None)
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


def test_bootstrap_intervals_are_those_of_the_mean() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(3.0, 2.0, (400, 1))
    low, high = bootstrap_means(values)
    half = 1.96 * values.std() / 20
    assert low[0] == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high[0] == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_bootstrap_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(1)
    low, high = bootstrap_means(generator.exponential(1.0, (150, 300)))
    assert 0.90 <= float(((low <= 1) & (high >= 1)).mean()) <= 0.98


def test_quantities_of_one_table_are_resampled_together_and_missing_values_are_left_out() -> None:
    generator = np.random.default_rng(2)
    first = generator.random(50)
    table = np.stack([first, first + 1.0, np.where(first < 0.5, np.nan, first), np.full(50, np.nan)], axis=1)
    low, high = bootstrap_means(table)
    assert low[1] - low[0] == pytest.approx(1.0) and high[1] - high[0] == pytest.approx(1.0)
    assert low[0] < first.mean() < low[2] < first[first >= 0.5].mean() < high[2]
    assert np.isnan([low[3], high[3]]).all()
    again = bootstrap_means(table[:, :1])
    assert (again[0][0], again[1][0]) == pytest.approx((low[0], high[0]), abs=1e-12)


def test_a_constant_has_no_spread_and_nothing_has_no_interval() -> None:
    low, high = bootstrap_means(np.full((7, 1), 0.25))
    assert low[0] == high[0] == 0.25
    with pytest.raises(ValueError, match="at least one example"):
        bootstrap_means(np.empty((0, 1)))
