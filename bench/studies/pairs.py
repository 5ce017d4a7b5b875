"""Differences of two runs image by image, from their evidence: narrower and more honest than two separate intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from bench.comparison.evidence import row_values
from bench.core.errors import BenchError
from bench.leaderboard.evidence.records import read_records
from bench.leaderboard.metrics import MetricKey, keys_of
from bench.leaderboard.statistics.intervals import paired_interval
from bench.protocols.retraining.metrics import correct_matrix, score
from bench.studies.study import MetricName

Array = npt.NDArray[np.float64]


class Pairs:
    """Paired differences between runs whose evidence lies in a leaderboard's folder."""

    def __init__(self, leaderboard: Path, rows: pd.DataFrame) -> None:
        self.leaderboard, self.rows = leaderboard, rows
        self._records: dict[str, pd.DataFrame | None] = {}

    def difference(
        self, of: MetricName, better: str, against: MetricName, worse: str
    ) -> tuple[float, float, float, str] | None:
        """Effect, its 95 % bootstrap interval and n; None where the evidence is not there or cannot be paired."""
        if of.key.metric != against.key.metric:
            return None
        if of.key.metric in ("roar_score", "kar_score"):
            return _scores(of.key, self._evidence(of.suite, better), against.key, self._evidence(against.suite, worse))
        return _means(self._values(of, better), self._values(against, worse))

    def _values(self, of: MetricName, model: str) -> pd.Series[float] | None:
        """A metric example by example, for any protocol that keeps it so."""
        rows = self.rows[(self.rows["suite"] == of.suite) & (self.rows["model"] == model)]
        rows = rows[[key == of.key for key in keys_of(rows)]].tail(1)
        if rows.empty:
            return None
        try:
            found = row_values(self.leaderboard / "runs" / str(rows["run_id"].iloc[0]), rows).get(of.key)
        except BenchError:
            return None
        return None if found is None else found.values.astype("float64")

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
    of: MetricKey, first: pd.DataFrame | None, against: MetricKey, second: pd.DataFrame | None
) -> tuple[float, float, float, str] | None:
    """Of two maps' areas: the random baseline cancels; nets are paired by seed, images by number."""
    if first is None or second is None:
        return None
    maps = [records[records["map"] == key.subject] for records, key in ((first, of), (second, against))]
    if any(records.empty for records in maps):
        return None
    (correct, removed), (other, other_removed) = (correct_matrix(records) for records in maps)
    if correct.shape != other.shape or not np.allclose(removed, other_removed):
        return None
    found = score(of.metric.removesuffix("_score"), correct, other, removed)
    return found.value, *found.interval, f"{correct.shape[2]} images and {correct.shape[0]} seeds in pairs"


def _means(first: pd.Series[float] | None, second: pd.Series[float] | None) -> tuple[float, float, float, str] | None:
    if first is None or second is None:
        return None
    joined = first.to_frame("first").join(second.to_frame("second"), how="inner").dropna()
    if joined.empty:
        return None
    gaps = joined["first"].to_numpy(dtype=np.float64) - joined["second"].to_numpy(dtype=np.float64)
    return float(gaps.mean()), *paired_interval(gaps), f"{len(gaps)} images in pairs, 1 seed a model"
