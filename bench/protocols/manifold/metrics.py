"""From distances to the manifold to medians, their ratio, and how well the distance tells adversarial from clean."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

from bench.leaderboard.metrics import ExampleValues, Metric, MetricKey, Prominence
from bench.leaderboard.statistics.intervals import bootstrap, mean_intervals

MANIFOLD_COLUMNS = {
    "example_id": "int32",
    "label": "int32",
    "prediction": "int32",
    "adversarial_prediction": "int32",
    "reference_prediction": "int32",
    "reference_adversarial_prediction": "int32",
    "perturbation": "float64",
    "clean_distance": "float64",
    "adversarial_distance": "float64",
    "turned_distance": "float64",
    "spread": "float64",
}
"""One row an example. Distances are L2, pixels in [0, 1]; `spread` is that of the clean image to the mean image,
`turned_distance` that of the control, NaN where it has none."""
FILTERS = ("fooled_reference", "fooled_itself")
"""Which adversarial images count: those that change the reference model's label (the paper), or the model's own."""
_RESAMPLES = 500
_FEWEST = 6
"""Of fewer values the smallest and the largest hold the median less often than 95 % of the time."""

Array = npt.NDArray[np.float64]


def kept(records: pd.DataFrame, chosen: str) -> pd.Series[bool]:
    """Whether a filter keeps each example's adversarial image."""
    if chosen == "fooled_reference":
        return records["reference_adversarial_prediction"] != records["reference_prediction"]
    return records["adversarial_prediction"] != records["prediction"]


def explained_variance(records: pd.DataFrame) -> float:
    """1 - sum of squared reconstruction errors over the sum of squared distances to the mean image, clean images."""
    return 1.0 - float(records["clean_distance"].pow(2).sum() / max(records["spread"].pow(2).sum(), 1e-12))


def _explained_bounds(records: pd.DataFrame, explained: float) -> tuple[float, float]:
    """The interval of the explained variance: that of the mean of its linearised values (the delta method)."""
    errors, spreads = (records[name].to_numpy(np.float64) ** 2 for name in ("clean_distance", "spread"))
    linearised = explained + ((1.0 - explained) * spreads - errors) / max(float(spreads.mean()), 1e-12)
    (low,), (high,) = mean_intervals(linearised[:, None])
    return float(low), float(np.minimum(high, 1.0))  # Student's interval knows no largest value


def auroc(negatives: Array, positives: Array) -> Array:
    """The probability that a positive lies above a negative, ties counted half; over the last axis (Mann-Whitney)."""
    from scipy.stats import rankdata

    count = positives.shape[-1]
    places = rankdata(np.concatenate([positives, negatives], axis=-1), axis=-1)[..., :count].sum(-1)
    area: Array = (places - count * (count + 1) / 2) / (count * negatives.shape[-1])
    return area


def kept_values(records: pd.DataFrame) -> list[ExampleValues]:
    """Whether each filter keeps each example's adversarial image; by how much it lies farther away than its control."""
    by_id = records.set_index("example_id")
    found = []
    for chosen in FILTERS:
        keep = kept(by_id, chosen)
        found.append(ExampleValues(MetricKey("kept_share", chosen, norm="l2"), keep, "descriptive", "share"))
        if "turned_distance" in by_id:  # records of before the control have none
            excess = (by_id["adversarial_distance"] - by_id["turned_distance"]).where(keep)
            key = MetricKey("manifold_excess", chosen, norm="l2")
            found.append(ExampleValues(key, excess, "descriptive", "number"))
    return found


def distance_metrics(records: pd.DataFrame) -> list[Metric]:
    """Medians, their ratio and AUROC under both filters; what the reconstruction of clean images is worth."""
    clean = records["clean_distance"].to_numpy(dtype=np.float64)
    explained = explained_variance(records)
    of_clean = float(_median(clean)), *_bounds(_median, clean)
    metrics = [
        _metric("explained_variance", "", "", (explained, *_explained_bounds(records, explained)), count=len(clean)),
        _metric("clean_manifold_distance", "", "", of_clean, count=len(clean)),
    ]
    for chosen in FILTERS:
        keep = kept(records, chosen).to_numpy(dtype=bool)
        if keep.sum() > 1:
            metrics += _distances(clean, records["adversarial_distance"].to_numpy(dtype=np.float64)[keep], chosen)
    return metrics


def _metric(name: str, chosen: str, norm: str, value: tuple[float, float, float], count: int) -> Metric:
    prominence: Prominence = "headline" if name == "manifold_distance" else "usual"
    return Metric(MetricKey(name, chosen, norm=norm), *value, count, "descriptive", "number", prominence)


def _distances(clean: Array, adversarial: Array, chosen: str) -> list[Metric]:
    statistics: dict[str, Callable[[Array, Array], Array]] = {
        "manifold_distance": lambda _, distances: _median(distances),
        "manifold_distance_ratio": lambda of_clean, distances: _median(distances) / _median(of_clean),
        "manifold_auroc": auroc,
    }
    found = []
    for name, statistic in statistics.items():
        bounds = _bounds(statistic, clean, adversarial, seed=1)
        value = float(statistic(clean, adversarial))
        found.append(_metric(name, chosen, "l2", (value, *bounds), count=len(adversarial)))
    return found


def _bounds(statistic: Callable[..., Array], *samples: Array, seed: int = 0) -> tuple[float, float]:
    """The bootstrap's interval; none of so few images that no ranks hold a median, and none without a width."""
    if min(map(len, samples)) >= _FEWEST:
        low, high = bootstrap(statistic, *samples, resamples=_RESAMPLES, seed=seed)
        if low < high:
            return low, high
    return math.nan, math.nan


def _median(distances: Array) -> Array:
    """Over the last axis."""
    return np.asarray(np.median(distances, axis=-1))
