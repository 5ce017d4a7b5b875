"""Ranks that mean something: a model stands behind another only where the paired test says so."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from bench.results.example_values import ExampleValues
from bench.results.kinds import metric_kind
from bench.results.paired import ALPHA, compare_values, holm


def rank_with_ties(values: Mapping[str, ExampleValues]) -> dict[str, int]:
    """Rank of each model on one metric: 1 plus the number of models that are significantly better.

    Every pair is tested on the same examples, with Holm's correction over all pairs at 5 %. Models that no test
    separates may share a rank.

    Raises:
        BenchError: the models were not measured on the same examples.
    """
    pairs = list(itertools.combinations(values, 2))
    compared = [compare_values(values[first], values[second]) for first, second in pairs]
    adjusted = holm([one.p_value for one in compared])
    better_is_higher = all(metric_kind(one.metric).better != "lower" for one in values.values())
    beaten = dict.fromkeys(values, 0)
    for (first, second), comparison, p_value in zip(pairs, compared, adjusted, strict=True):
        if p_value <= ALPHA and comparison.difference != 0:
            second_wins = (comparison.difference > 0) == better_is_higher
            beaten[first if second_wins else second] += 1
    return {model: 1 + count for model, count in beaten.items()}
