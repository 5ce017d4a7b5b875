"""Ranks that mean something: a model stands behind another only where the paired test says so."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from bench.leaderboard.metrics import ExampleValues
from bench.leaderboard.statistics.paired import ALPHA, difference_and_p_value, holm


def rank_with_ties(values: Mapping[str, ExampleValues]) -> dict[str, int]:
    """Rank of each model on one metric: 1 plus the number of models that are significantly better.

    Every pair is tested on the same examples, with Holm's correction over all pairs at 5 %. Models that no test
    separates may share a rank.

    Raises:
        BenchError: the models were not measured on the same examples.
    """
    pairs = list(itertools.combinations(values, 2))
    compared = [difference_and_p_value(values[first], values[second]) for first, second in pairs]
    adjusted = holm([p_value for _, p_value in compared])
    better_is_higher = all(one.direction != "lower" for one in values.values())
    beaten = dict.fromkeys(values, 0)
    for (first, second), (difference, _), p_value in zip(pairs, compared, adjusted, strict=True):
        if p_value <= ALPHA and difference != 0:
            second_wins = (difference > 0) == better_is_higher
            beaten[first if second_wins else second] += 1
    return {model: 1 + count for model, count in beaten.items()}
