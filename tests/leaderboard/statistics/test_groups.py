from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.leaderboard.statistics import groups
from bench.leaderboard.statistics.groups import Estimate, front_difference, sum_of_groups, sum_of_values
from bench.leaderboard.statistics.intervals import bootstrap, t_interval
from bench.leaderboard.statistics.paired import holm, mcnemar

Array = NDArray[np.float64]


def nets(random: np.random.Generator, mean: float, seeds: int = 3, between: float = 0.02, images: int = 200) -> Array:
    return random.normal(mean, 0.1, (seeds, images)) + random.normal(0, between, (seeds, 1))


def test_seeds_that_differ_keep_a_lucky_pair_from_being_a_finding() -> None:
    random = np.random.default_rng(0)
    first, second = nets(random, 0.5, between=0.05), nets(random, 0.5, between=0.05)
    best, worst = first[first.mean(1).argmax()], second[second.mean(1).argmin()]
    assert t_interval(best - worst)[0] > 0  # one net a side, images alone: "better"
    assert sum_of_groups([first, -second]).p_value() > 0.05


def test_of_no_difference_three_seeds_a_side_find_one_in_twenty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds drawn with replacement find one in five."""
    monkeypatch.setattr(groups, "DRAWS", 1000)
    random = np.random.default_rng(1)
    found, naive = 0, 0
    for _ in range(300):
        first, second = (nets(random, 0.5, between=0.1, images=20) for _ in range(2))
        low, high = sum_of_groups([first, -second]).interval
        found += not low <= 0 <= high
        drawn = [side.mean(1)[random.integers(3, size=(500, 3))].mean(1) for side in (first, second)]
        low, high = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
        naive += not low <= 0 <= high
    assert found <= 0.08 * 300 and naive >= 0.12 * 300


def test_a_lone_seed_varies_as_the_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "DRAWS", 1000)
    random = np.random.default_rng(7)
    found = 0
    for _ in range(300):
        first, second = (nets(random, 0.5, count, between=0.1, images=20) for count in (3, 1))
        low, high = sum_of_groups([first, -second]).interval
        found += not low <= 0 <= high
    assert found <= 0.08 * 300  # .16 where the lone seed is taken as certain, .18 with Welch's degrees of freedom


def test_images_are_drawn_in_pairs() -> None:
    random = np.random.default_rng(2)
    hard = random.normal(0, 1, 500)
    first, second = hard + 0.01, hard.copy()
    low, high = sum_of_groups([first[None], -second[None]]).interval
    assert high - low < 1e-9 and low == pytest.approx(0.01)


def test_the_bootstrap_is_fast_and_always_the_same() -> None:
    values = np.random.default_rng(3).normal(0, 1, (3, 1000))
    began = time.process_time()
    first, second = sum_of_groups([values]), sum_of_groups([values])
    assert time.process_time() - began < 6 and np.array_equal(first.draws, second.draws)
    assert first.value == pytest.approx(values.mean())


def test_mcnemar_does_not_take_21_against_10_for_a_finding_as_few_draws_do() -> None:
    gaps = np.r_[np.ones(21), -np.ones(10), np.zeros(969)]
    assert bootstrap(lambda drawn: drawn.mean(1), gaps)[0] > 0
    assert mcnemar(21, 10) == pytest.approx(0.0708, abs=1e-4)


def test_a_difference_that_is_not_significant_is_not_equivalence() -> None:
    wide = Estimate(0.0, np.random.default_rng(4).normal(0, 0.05, groups.DRAWS))
    narrow = Estimate(0.0, wide.draws / 10)
    assert wide.p_value() > 0.05 and wide.equivalence(0.02) > 0.05
    assert narrow.equivalence(0.02) < 0.05
    off = Estimate(0.03, narrow.draws + 0.03)
    assert off.equivalence(0.02) > 0.9


def test_a_gain_on_both_is_no_difference_of_differences() -> None:
    """Heavy and light both gain .1, the heavy one alone is significant from 0: that is no "most under heavy"."""
    random = np.random.default_rng(5)
    heavy, light = nets(random, 0.1), nets(random, 0.1)
    assert sum_of_groups([heavy]).p_value() < 0.05
    assert sum_of_groups([heavy, -light]).p_value() > 0.05
    assert sum_of_groups([heavy + 0.2, -light]).p_value() < 0.05


def test_a_p_value_carries_its_monte_carlo_error() -> None:
    draws = np.r_[-np.ones(490), np.ones(groups.DRAWS - 490)]
    assert 2 * 490 / groups.DRAWS < 0.05 < Estimate(1.0, draws).p_value()
    assert holm([Estimate(1.0, np.ones(groups.DRAWS)).p_value()] * 60)[0] < 0.05  # enough draws for a long study


def test_values_without_images_have_their_error_and_the_seeds() -> None:
    found = sum_of_values([(np.array([5.0]), 0.3), (np.array([-4.0]), 0.4)])
    assert found.value == 1.0 and np.ptp(found.interval) == pytest.approx(2 * 1.96 * 0.5, rel=0.05)


def front(xs: list[float], ys: list[float], seeds: int = 3) -> list[list[Array]]:
    random = np.random.default_rng(6)
    return [[nets(random, x, seeds, 0.003), nets(random, y, seeds, 0.003)] for x, y in zip(xs, ys, strict=True)]


def test_fronts_are_compared_where_they_cost_the_same() -> None:
    """The second method at its one strength beats the first's by .2, at twelve points less accuracy: same curve."""
    first, second = front([0.9, 0.86, 0.82], [0.1, 0.18, 0.26]), front([0.88, 0.82, 0.74], [0.14, 0.26, 0.42])
    assert sum_of_groups([second[2][1], -first[1][1]]).p_value() < 0.05
    same, (low, high) = front_difference(second, first)
    assert same.p_value() > 0.05 and low == pytest.approx(0.82, abs=0.02) and high == pytest.approx(0.88, abs=0.02)
    better, _ = front_difference([[x, y + 0.1] for x, y in second], first)
    assert better.value == pytest.approx(same.value + 0.1) and better.p_value() < 0.05


def test_a_lone_strength_is_compared_at_its_own_x() -> None:
    """It beats the curve's middle strength by .04, at two points less accuracy: on the same curve."""
    curve, lone = front([0.9, 0.86, 0.82], [0.1, 0.18, 0.26]), front([0.84], [0.22])
    assert sum_of_groups([lone[0][1], -curve[1][1]]).p_value() < 0.05
    same, (low, high) = front_difference(lone, curve)
    assert same.p_value() > 0.05 and low == high == pytest.approx(0.84, abs=0.01)
    better, _ = front_difference([[lone[0][0], lone[0][1] + 0.1]], curve)
    assert better.value == pytest.approx(same.value + 0.1) and better.p_value() < 0.05
    worse, _ = front_difference(curve, [[lone[0][0], lone[0][1] + 0.1]])
    assert worse.value == pytest.approx(-better.value) and worse.p_value() < 0.05


def test_accuracy_may_be_of_more_images_than_what_it_is_matched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 300 images accuracy says too little of a front that falls steeply with it; of 12,000 it says enough."""
    monkeypatch.setattr(groups, "DRAWS", 3000)
    images = np.random.default_rng(7).random((4, 12_000))
    accuracies, stabilities = (0.90, 0.85), (0.0, 1.0)

    def side(gain: float, count: int, rows: slice) -> list[list[Array]]:
        right = zip(images[rows], accuracies, stabilities, strict=True)
        return [[(row[None, :count] < x).astype(float), np.full((1, 300), y + gain)] for row, x, y in right]

    few, many = (front_difference(side(0.3, n, slice(2)), side(0.0, n, slice(2, 4)))[0] for n in (300, 12_000))
    assert few.p_value() > 0.05 > many.p_value() and many.value == pytest.approx(0.3, abs=0.12)


@pytest.mark.parametrize("lone", [False, True])
def test_a_front_with_one_restless_strength_is_no_finding_of_its_own(
    lone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the degrees of freedom of all seeds together, or a lone seed that is certain, one in six is found."""
    monkeypatch.setattr(groups, "DRAWS", 500)
    random, found = np.random.default_rng(8), 0

    def side(restless: bool) -> list[list[Array]]:
        counts = [3, 1 if restless and lone else 3, 3]
        spreads = [0.1] * 3 if lone else [0.02, 0.5 if restless else 0.02, 0.02]
        points = zip((0.9, 0.85, 0.8), counts, spreads, strict=True)
        return [[np.full((count, 20), x), nets(random, 0.5, count, spread, images=20)] for x, count, spread in points]

    for _ in range(200):
        low, high = front_difference(side(True), side(False))[0].interval
        found += not low <= 0 <= high
    assert found <= 0.12 * 200


def test_shares_that_are_alike_on_every_image_are_not_certain() -> None:
    right = sum_of_groups([np.ones((3, 1000))])
    assert right.value == 1.0 and right.interval[0] == pytest.approx(0.9962, abs=0.002) and right.interval[1] <= 1.0
    same = np.ones((3, 5))
    assert sum_of_groups([same, -same]).equivalence(0.02) > 0.05
    same = np.ones((3, 2000))
    assert sum_of_groups([same, -same]).equivalence(0.02) < 0.05


def test_shares_less_a_number_are_shares_all_the_same() -> None:
    """Twelve images right of twelve, less a chance of .1."""
    right = np.ones((3, 12))
    plain, less = sum_of_groups([right]), sum_of_groups([right - 0.1], [0.1])
    assert np.allclose(less.draws, plain.draws - 0.1) and less.interval[0] < 0.85
    assert less.p_value(0.85) > 0.5 and less.interval[1] == pytest.approx(0.9)


@pytest.mark.parametrize(("differing", "decided"), [(4, False), (5, False), (6, True)])
def test_fewer_than_six_images_decide_nothing_with_any_number_of_seeds(differing: int, decided: bool) -> None:
    first = np.zeros((3, 1000))
    first[:, :differing] = 1
    p = sum_of_groups([first, -np.zeros((3, 1000))]).p_value()
    assert p >= 2.0 ** (1 - differing) and (p <= 0.05) == decided


def test_a_front_of_few_images_finds_no_more_than_one_in_twenty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Percentiles of the images drawn again find one in seven at five images."""
    monkeypatch.setattr(groups, "DRAWS", 500)
    random = np.random.default_rng(3)
    found = 0
    for _ in range(200):
        fronts = [
            [(np.full((3, 5), x), np.repeat(random.normal(0.5, 0.1, (1, 5)), 3, axis=0)) for x in (0.2, 0.8)]
            for _ in range(2)
        ]
        low, high = front_difference(*fronts)[0].interval
        found += not low <= 0 <= high
    assert found <= 0.09 * 200


def test_a_front_that_is_all_right_against_one_all_wrong_is_not_certain() -> None:
    right, wrong = ([(np.full((3, 200), x), np.full((3, 200), y)) for x in (0.2, 0.8)] for y in (1.0, 0.0))
    estimate, _ = front_difference(right, wrong)
    assert estimate.value == 1.0 and 0.9 < estimate.interval[0] < 1.0 and estimate.p_value() < 0.01


def test_fronts_that_do_not_meet_are_not_compared() -> None:
    with pytest.raises(ValueError, match="no x is reached by both"):
        front_difference(front([0.9, 0.8], [0, 0]), [[x - x.mean() + 0.8, y] for x, y in front([0.8, 0.8], [0, 0])])
    with pytest.raises(ValueError, match="no x is reached by both"):
        front_difference(front([0.9, 0.8], [0, 0]), front([0.7, 0.6], [0, 0]))
    with pytest.raises(ValueError, match="no x is reached by both"):
        front_difference(front([0.9], [0]), front([0.7, 0.6], [0, 0]))
    with pytest.raises(ValueError, match="two strengths"):
        front_difference(front([0.9], [0]), front([0.9], [0]))
