"""Differences of two runs image by image, from their evidence: narrower and more honest than two separate intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bench.catalog.studies import MetricName
from bench.comparison.evidence import row_values
from bench.core.errors import BenchError
from bench.leaderboard.evidence.records import read_records
from bench.leaderboard.statistics.intervals import FEW, mean_intervals
from bench.protocols.retraining.metrics import correct_matrix, score

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]
_REPLICATES = 2000


class Pairs:
    """Paired differences between runs whose evidence lies in a leaderboard's folder."""

    def __init__(self, leaderboard: Path, rows: pd.DataFrame) -> None:
        self.leaderboard, self.rows = leaderboard, rows
        self._records: dict[str, pd.DataFrame | None] = {}

    def difference(
        self, of: MetricName, better: str, against: MetricName, worse: str
    ) -> tuple[float, float, float, str] | None:
        """Effect, its 95 % bootstrap interval and n; None where the evidence is not there or cannot be paired."""
        first, second = self._evidence(of.suite, better), self._evidence(against.suite, worse)
        if first is None or second is None or of.metric != against.metric:
            return None
        if of.metric in ("roar_score", "kar_score"):
            return _scores(of, first, against, second)
        if of.metric in ("clean_accuracy", "robust_accuracy"):
            return _accuracies(of, first, against, second)
        return _means(self._values(of, better), self._values(against, worse))

    def _values(self, of: MetricName, model: str) -> pd.Series[float] | None:
        """A metric example by example, for any protocol that keeps it so."""
        rows = self.rows[
            (self.rows["suite"] == of.suite) & (self.rows["model"] == model) & (self.rows["metric"] == of.metric)
        ]
        if rows.empty:
            return None
        run = str(rows["run_id"].iloc[-1])
        try:
            found = row_values(self.leaderboard / "runs" / run, rows[rows["run_id"] == run])
        except BenchError:
            return None
        for (metric, attack, norm, eps), values in found.items():
            near = (eps is None) == (of.eps is None) and np.isclose(eps or 0.0, of.eps or 0.0, 1e-4)
            if (metric, attack, norm) == (of.metric, of.attack, of.norm) and near:
                return values.values
        return None

    def _evidence(self, suite: str, model: str) -> pd.DataFrame | None:
        runs = self.rows.loc[(self.rows["suite"] == suite) & (self.rows["model"] == model), "run_id"]
        if runs.empty:
            return None
        run = str(runs.iloc[-1])
        if run not in self._records:
            try:
                self._records[run] = read_records(self.leaderboard / "runs" / run / "examples.parquet")
            except BenchError:
                self._records[run] = None
        return self._records[run]


def _scores(
    of: MetricName, first: pd.DataFrame, against: MetricName, second: pd.DataFrame
) -> tuple[float, float, float, str] | None:
    """Of two maps' areas: the random baseline cancels; nets are paired by seed, images by number."""
    maps = [records[records["map"] == name] for records, name in ((first, of.attack), (second, against.attack))]
    if any(records.empty for records in maps):
        return None
    (correct, removed), (other, other_removed) = (correct_matrix(records) for records in maps)
    if correct.shape != other.shape or not np.allclose(removed, other_removed):
        return None
    found = score(of.metric.removesuffix("_score"), correct, other, removed)
    return found.value, *found.interval, f"{correct.shape[2]} images and {correct.shape[0]} seeds in pairs"


def _accuracies(
    of: MetricName, first: pd.DataFrame, against: MetricName, second: pd.DataFrame
) -> tuple[float, float, float, str] | None:
    outcomes = [_outcomes(of, first), _outcomes(against, second)]
    if any(outcome is None for outcome in outcomes):
        return None
    joined = outcomes[0].to_frame("first").join(outcomes[1].to_frame("second"), how="inner")  # type: ignore[union-attr]
    gaps = joined["first"].to_numpy(dtype=np.float64) - joined["second"].to_numpy(dtype=np.float64)
    if not len(gaps):
        return None
    low, high = paired_bootstrap(gaps)
    return float(gaps.mean()), low, high, f"{len(gaps)} images in pairs, 1 seed a model"


def _means(first: pd.Series[float] | None, second: pd.Series[float] | None) -> tuple[float, float, float, str] | None:
    if first is None or second is None:
        return None
    joined = first.to_frame("first").join(second.to_frame("second"), how="inner").dropna()
    if joined.empty:
        return None
    gaps = joined["first"].to_numpy(dtype=np.float64) - joined["second"].to_numpy(dtype=np.float64)
    low, high = paired_bootstrap(gaps)
    return float(gaps.mean()), low, high, f"{len(gaps)} images in pairs, 1 seed a model"


def _outcomes(of: MetricName, records: pd.DataFrame) -> pd.Series[bool] | None:
    """Whether each image counts as a success, by example id; the worst over attacks where the metric says so."""
    if "example_id" not in records or "prediction" not in records:
        return None
    if of.metric == "clean_accuracy":
        once = records.drop_duplicates("example_id").set_index("example_id")
        return once["prediction"] == once["label"]
    if of.eps is None or "broken" not in records:
        return None
    chosen = records[(records["norm"].astype(str) == of.norm) & np.isclose(records["eps"], of.eps)]
    if of.attack != "worst":
        chosen = chosen[chosen["attack"].astype(str) == of.attack]
    return None if chosen.empty else ~chosen.groupby("example_id")["broken"].any()


def paired_bootstrap(gaps: Array) -> tuple[float, float]:
    """The 95 % interval of the mean of paired differences: percentiles of resamples, Student's t of few examples."""
    if len(gaps) < FEW:
        low, high = mean_intervals(gaps[:, None])
        return float(low[0]), float(high[0])
    random = np.random.default_rng(0)
    means = gaps[random.integers(len(gaps), size=(_REPLICATES, len(gaps)))].mean(1)
    return tuple(np.quantile(means, [0.025, 0.975]).tolist())
