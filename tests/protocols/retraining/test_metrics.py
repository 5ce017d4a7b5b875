from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bench.protocols.retraining.metrics import leakage_finding, score, trapezoid_weights


def test_the_score_is_the_papers_closed_form() -> None:
    removed = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    assert trapezoid_weights(removed) == pytest.approx([0.15, 0.2, 0.2, 0.2, 0.15])
    random = np.random.default_rng(0)
    first, second = (random.integers(0, 2, (3, 5, 400)).astype(float) for _ in range(2))
    gaps = (second - first).mean((0, 2))
    expected = 0.15 * (gaps[0] + gaps[4]) + 0.2 * gaps[1:4].sum()
    found = score("roar", first, second, removed)
    assert found.value == pytest.approx(expected)
    assert score("kar", first, second, removed).value == pytest.approx(-expected)
    assert found.interval[0] < found.value < found.interval[1]


def test_the_bootstrap_covers_what_seeds_and_images_vary() -> None:
    """Two sources of spread, known: the interval's half width is near 1.96 of the true standard error of the mean."""
    random = np.random.default_rng(1)
    truth = 0.3
    halves, misses = [], 0
    for trial in range(15):
        levels = np.clip(truth + 0.05 * random.standard_normal((12, 1, 1)), 0, 1)
        kept = (random.random((12, 1, 500)) < levels).astype(float)
        found = score("kar", kept, np.zeros_like(kept), np.array([0.5]), seed=trial)
        halves.append((found.interval[1] - found.interval[0]) / 2)
        misses += not found.interval[0] <= 0.5 * truth <= found.interval[1]
    expected = 1.96 * 0.5 * np.sqrt(0.05**2 / 12 + truth * (1 - truth) / (12 * 500))
    assert np.mean(halves) == pytest.approx(expected, rel=0.35)
    assert misses <= 3


def test_masks_that_give_the_class_away_are_told_of_and_others_are_not() -> None:
    def records(correct: int) -> pd.DataFrame:
        nets = [("mask_only:gradient", removed, correct) for removed in (0.1, 0.5, 0.9)] + [("gradient", 0.5, 90)]
        frame = pd.DataFrame(nets, columns=["map", "removed", "correct"])
        return frame.assign(n_examples=100)

    (found,) = leakage_finding(records(86), classes=10)
    assert "86.0 % right with 50 % removed (chance 10 %)" in found.evidence and "the control decides" in found.advice
    assert not leakage_finding(records(12), classes=10)
    assert not leakage_finding(records(86)[3:], classes=10)
