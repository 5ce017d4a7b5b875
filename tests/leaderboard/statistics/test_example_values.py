from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bench.leaderboard.kinds import metric_kind
from bench.leaderboard.statistics.example_values import ExampleValues, mean_metrics


def test_metrics_are_means_with_their_own_counts_in_the_order_given() -> None:
    first = pd.Series([1.0, 2.0, 6.0], index=[3, 1, 2])
    second = pd.Series([np.nan, 4.0, np.nan], index=[1, 2, 3])
    empty = pd.Series(np.nan, index=[1, 2, 3])
    metrics = mean_metrics([
        ExampleValues("stability/cosine/gradient", first, "uniform", "linf", 0.1),
        ExampleValues("stability/nothing/gradient", empty),
        ExampleValues("stability_correct/cosine/gradient", second),
    ])  # fmt: skip
    assert [(m.metric, m.value, m.n_examples) for m in metrics] == [
        ("stability/cosine/gradient", 3.0, 3),
        ("stability_correct/cosine/gradient", 4.0, 1),
    ]
    assert (metrics[0].attack, metrics[0].norm, metrics[0].eps) == ("uniform", "linf", 0.1)
    assert metrics[0].ci_low < 3.0 < metrics[0].ci_high


def test_the_order_of_the_examples_does_not_matter() -> None:
    series = pd.Series(np.random.default_rng(0).random(40))
    shuffled = series.sample(frac=1.0, random_state=1)
    assert (
        mean_metrics([ExampleValues("a", series)])[0].ci_low == mean_metrics([ExampleValues("a", shuffled)])[0].ci_low
    )


def test_metrics_over_different_examples_are_refused() -> None:
    one, other = pd.Series([1.0, 2.0]), pd.Series([1.0, 2.0], index=[5, 6])
    with pytest.raises(ValueError, match="over the same examples"):
        mean_metrics([ExampleValues("a", one), ExampleValues("b", other)])
    assert mean_metrics([]) == []


@pytest.mark.parametrize(
    ("metric", "better", "percent"),
    [
        ("robust_accuracy", "higher", True),
        ("stability/cosine/gradient", "higher", False),
        ("stability/centre_shift/gradient", "lower", False),
        ("taps/cosine/gradient", "lower", False),
        ("taps/centre_shift/gradient", "higher", False),
        ("taps_clean/cosine/gradient", "neither", False),
        ("deletion/gradient", "lower", False),
        ("deletion/random_order", "neither", False),
        ("never_heard_of", "neither", False),
    ],
)
def test_metrics_know_which_way_they_are_better(metric: str, better: str, percent: bool) -> None:
    kind = metric_kind(metric)
    assert (kind.better, kind.percent) == (better, percent)
