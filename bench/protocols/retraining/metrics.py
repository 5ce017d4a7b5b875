"""From retrained nets to ROAR and KAR scores: the area between a map's curve and the random one, with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import Metric, MetricKey, Prominence
from bench.leaderboard.statistics.intervals import RESAMPLES, interval_of, t_interval

MASK_ONLY = "mask_only"
RETRAINING_COLUMNS = {
    "map": "str",
    "seed": "int32",
    "removed": "float64",
    "kept_pixels": "int32",
    "correct": "int32",
    "n_examples": "int32",
    "correct_bits": "object",
}
"""One row for each retrained net: its map, seed, the share of pixels removed, and which test images it gets right.

`correct_bits` packs one bit an image, first image in the highest bit of the first byte.
"""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """A map's area against random pixels; positive is better than random in both directions.

    Attributes:
        value: integral over the removed fraction of the accuracy gap to random (sign by direction).
        interval: two-level bootstrap, over seeds and over test images.
        seeds_interval: Student's t over the seeds' own scores.
    """

    value: float
    interval: tuple[float, float]
    seeds_interval: tuple[float, float]


def trapezoid_weights(removed: Array) -> Array:
    """Weights of the gaps at inner points of [0, 1], both curves sharing their ends; .15 .2 .2 .2 .15 for the paper's.

    Source: Bridging, section 3 (closed form of the score).
    """
    ends: Array = np.concatenate([[0.0], removed, [1.0]])
    return (ends[2:] - ends[:-2]) / 2.0


def score(direction: str, map_correct: Array, random_correct: Array, removed: Array, seed: int = 0) -> Score:
    """The score of a map.

    Args:
        direction: `roar`, where a good map hurts more than random, or `kar`, where it hurts less.
        map_correct, random_correct: (seeds, points, test images) of 0 and 1, paired.
        removed: (points,) removed fractions, growing.
    """
    sign = 1.0 if direction == "roar" else -1.0
    gaps = sign * (random_correct - map_correct)
    per_image: Array = np.einsum("spe,p->se", gaps, trapezoid_weights(removed))
    by_seed = per_image.mean(1)
    return Score(float(by_seed.mean()), _bootstrap(per_image, seed), t_interval(by_seed))


def _bootstrap(per_image: Array, seed: int) -> tuple[float, float]:
    """Percentiles of the mean when seeds and images are drawn anew, independently of each other."""
    random = np.random.default_rng(seed)
    seeds, images = per_image.shape
    drawn = random.multinomial(images, np.full(images, 1.0 / images), size=RESAMPLES) / images
    by_replicate = drawn @ per_image.T
    chosen = random.integers(seeds, size=(RESAMPLES, seeds))
    means = np.take_along_axis(by_replicate, chosen, axis=1).mean(1)
    return interval_of(means)


def correct_matrix(records: pd.DataFrame) -> tuple[Array, Array]:
    """(seeds, points, images) of 0 and 1 and the removed fractions (points,), of the records of one map."""
    ordered = records.sort_values(["seed", "removed"])
    removed = np.array(sorted(set(ordered["removed"])))
    count = int(ordered["n_examples"].iloc[0])
    bits = np.stack([np.unpackbits(np.frombuffer(value, np.uint8))[:count] for value in ordered["correct_bits"]])
    return bits.reshape(-1, len(removed), count).astype(np.float64), removed


def map_scores(direction: str, records: pd.DataFrame) -> dict[str, Score]:
    """The score of every map but the random one."""
    names = [str(name) for name in dict.fromkeys(records["map"]) if name not in ("unmasked", "random")]
    return {name: _score_against(direction, records, name, "random") for name in names}


def _score_against(direction: str, records: pd.DataFrame, name: str, other: str) -> Score:
    (correct, removed), (of_other, _) = (correct_matrix(records[records["map"] == one]) for one in (name, other))
    return score(direction, correct, of_other, removed)


def retraining_metrics(direction: str, records: pd.DataFrame) -> list[Metric]:
    """Score and accuracies of every map, the latter by removed share in per cent: of `gradient/30`.

    Beside a map's score stands that of nets which see nothing but its masks' shapes (`mask_only:gradient`), and its
    own less that one, in pairs.
    """
    count = int(records["n_examples"].iloc[0])
    metrics = []
    for name, found in map_scores(direction, records).items():
        kind, _, own = name.rpartition(":")
        key, over_seeds = MetricKey(f"{direction}_score", name), MetricKey(f"{direction}_score_over_seeds", name)
        if kind == MASK_ONLY:
            less = MetricKey(f"{direction}_score_less_mask_only", own)
            pair = (key, found), (less, _score_against(direction, records, own, name))
            metrics += [
                Metric(of, one.value, *one.interval, count, "descriptive", "number", "headline") for of, one in pair
            ]
            continue
        prominence: Prominence = "headline" if name in ("gradient", "input_x_gradient") else "usual"
        metrics.append(Metric(key, found.value, *found.interval, count, "higher", "number", prominence))
        metrics.append(Metric(over_seeds, found.value, *found.seeds_interval, count, "descriptive", "number"))
    for _, nets in records.groupby(["map", "removed"], sort=False):
        name, removed = str(nets["map"].iloc[0]), float(nets["removed"].iloc[0])
        accuracies = (nets["correct"] / nets["n_examples"]).to_numpy(dtype=np.float64)
        low, high = t_interval(accuracies)
        bounds = max(0.0, low), min(1.0, high)
        key, value = MetricKey("retrained_accuracy", f"{name}/{100 * removed:.0f}"), float(accuracies.mean())
        metrics.append(Metric(key, value, *bounds, count, "descriptive", "share"))
    return metrics


def leakage_finding(records: pd.DataFrame, classes: int) -> list[Finding]:
    """Said where nets that see nothing but the masks' shapes find the class; the control then decides, not the map."""
    shapes = records[records["map"].str.startswith(MASK_ONLY)]
    if shapes.empty:
        return []
    nearest = (shapes["removed"] - 0.5).abs().min()
    at_half = shapes[np.isclose((shapes["removed"] - 0.5).abs(), nearest)]
    accuracy = float((at_half["correct"] / at_half["n_examples"]).mean())
    if accuracy < 2 / classes:
        return []
    evidence = (
        f"nets that see only which pixels are masked, and no picture, classify {100 * accuracy:.1f} % right with "
        f"{100 * float(at_half['removed'].iloc[0]):.0f} % removed (chance {100 / classes:.0f} %)"
    )
    advice = "the control decides: the score tells what the masks' shapes give away, not what the pixels are worth"
    return [Finding("mask_leakage", "warning", evidence, advice)]
