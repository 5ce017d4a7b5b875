from __future__ import annotations

import pytest

from bench.leaderboard.evidence.answers import FixedAnswers, Row, same_answers

ROW: Row = [0.5, -3.0, 7.0, 1.5]


def answers(row: Row, deviation: float = 0.0) -> FixedAnswers:
    return FixedAnswers([row, ROW], deviation)


@pytest.mark.parametrize("factor", [1.0, 1e-30, 1e30])
def test_rounding_is_no_other_net_and_a_percent_is_at_any_size(factor: float) -> None:
    row = [factor * value for value in ROW]
    rounded = [value * (1 + 1e-4) for value in row]
    assert same_answers(answers(row), answers(rounded))
    for position in range(4):
        changed = list(row)
        changed[position] += 0.02 * factor
        assert not same_answers(answers(row), answers(changed))
    assert not same_answers(answers(row), answers([2 * value for value in row]))


def test_a_random_net_may_differ_by_some_times_what_it_differs_from_itself() -> None:
    changed = [0.7, *ROW[1:]]
    assert same_answers(answers(ROW, 0.1), answers(changed, 0.1))
    assert not same_answers(answers(ROW, 0.01), answers(changed, 0.01))


def test_what_is_no_number_is_like_itself_alone() -> None:
    missing = [None, *ROW[1:]]
    assert same_answers(answers(missing), answers(missing))
    assert not same_answers(answers(missing), answers(ROW))


def test_answers_to_other_images_or_of_other_classes_are_not_alike() -> None:
    for other in (FixedAnswers([ROW], 0.0), answers(ROW[:3]), FixedAnswers([], 0.0)):
        assert not same_answers(answers(ROW), other) and not same_answers(other, answers(ROW))
