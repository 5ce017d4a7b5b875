from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bench.leaderboard.metrics import ExampleValues, Metric, MetricKey, Unit, derived_metrics, keys_of
from bench.leaderboard.statistics.intervals import wilson

KEY = MetricKey("stability/cosine", "gradient", "uniform", "linf", eps=0.1)


def numbers(values: pd.Series, key: MetricKey = KEY, unit: Unit = "number") -> ExampleValues:
    return ExampleValues(key, values, "higher", unit)


def test_metrics_are_means_with_their_own_counts_in_the_order_given() -> None:
    first = pd.Series([1.0, 2.0, 6.0], index=[3, 1, 2])
    second = pd.Series([np.nan, 4.0, np.nan], index=[1, 2, 3])
    empty = pd.Series(np.nan, index=[1, 2, 3])
    other = MetricKey("stability_correct/cosine", "gradient")
    found = derived_metrics([numbers(first), numbers(empty, MetricKey("nothing")), numbers(second, other)])
    assert [(one.key, one.value, one.n_examples) for one in found] == [(KEY, 3.0, 3), (other, 4.0, 1)]
    assert found[0].ci_low < 3.0 < found[0].ci_high
    assert {(one.direction, one.unit) for one in found} == {("higher", "number")}


def test_verdicts_get_wilsons_interval_wherever_they_stand() -> None:
    verdicts = pd.Series([True, False, True, True], index=[5, 6, 7, 8])
    half = pd.Series([0.5, 1.0], index=[1, 2])
    _, share = derived_metrics([numbers(half), numbers(verdicts, unit="share")])
    assert share == Metric(KEY, 0.75, *wilson(3, 4), 4, "higher", "share")


def test_a_share_that_is_0_or_1_of_every_example_gets_wilsons_interval_too() -> None:
    kept = pd.Series([1.0] * 100 + [np.nan])
    share, half, number = derived_metrics(
        [numbers(kept, unit="share"), numbers(0.5 * kept, unit="share"), numbers(kept)]
    )
    assert share == Metric(KEY, 1.0, *wilson(100, 100), 100, "higher", "share") and share.ci_low < 0.97
    assert half.ci_low == half.ci_high == 0.5 and number.ci_low == number.ci_high == 1.0


def test_the_interval_of_a_share_ends_where_a_share_ends() -> None:
    (share,) = derived_metrics([numbers(pd.Series([1.0, 1.0, 0.9]), unit="share")])
    (number,) = derived_metrics([numbers(pd.Series([1.0, 1.0, 0.9]))])
    assert share.ci_high == 1.0 < number.ci_high and share.ci_low == number.ci_low


def test_the_order_of_the_examples_does_not_matter() -> None:
    series = pd.Series(np.random.default_rng(0).random(40))
    shuffled = series.sample(frac=1.0, random_state=1)
    assert derived_metrics([numbers(series)]) == derived_metrics([numbers(shuffled)])


def test_metrics_over_different_examples_are_refused() -> None:
    one, other = pd.Series([1.0, 2.0]), pd.Series([1.0, 2.0], index=[5, 6])
    with pytest.raises(ValueError, match="over the same examples"):
        derived_metrics([numbers(one), numbers(other)])
    assert derived_metrics([]) == []


def test_a_key_survives_the_way_through_a_flat_record_and_through_a_frame() -> None:
    keys = [KEY, MetricKey("clean_accuracy")]
    records = [Metric(key, 0.5, 0.4, 0.6, n_examples=10, direction="higher", unit="share").as_dict() for key in keys]
    assert [MetricKey.of(record) for record in records] == keys == keys_of(pd.DataFrame(records))


def test_an_infinite_value_counts_as_a_value_and_leaves_the_mean_without_an_interval() -> None:
    (found,) = derived_metrics([numbers(pd.Series([np.inf, np.nan] + [0.5] * 200))])
    assert found.value == np.inf and found.n_examples == 201 and np.isnan(found.ci_low) and np.isnan(found.ci_high)
