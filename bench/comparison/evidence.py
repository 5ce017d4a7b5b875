"""Finished runs of any protocol, example by example."""

from __future__ import annotations

import logging
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from bench.catalog.suites import Suite, SuiteFile
from bench.core.errors import BenchError, in_one_line
from bench.leaderboard.evidence.doubts import row_doubt
from bench.leaderboard.evidence.manifest import read_evidence
from bench.leaderboard.metrics import ExampleValues, MetricKey, keys_of, mean_value
from bench.leaderboard.table import as_written
from bench.protocols import Protocol, protocol_for

logger = logging.getLogger(__name__)


def run_values(folder: Path, only: MetricKey | None = None) -> dict[MetricKey, ExampleValues]:
    """Per-example values of a run's metrics, or, much faster, of one of them.

    Raises:
        BenchError: the evidence is missing, damaged or changed.
    """
    manifest, records = read_evidence(folder)
    dataset = manifest.config.dataset
    try:
        protocol = _protocol_of(manifest.suite.model_dump_json())
        with protocol.blamed():
            found = protocol.example_values(dataset, records)
            found = list(found if only is None else islice((one for one in found if one.key == only), 1))
        if not all(values.values.index.is_unique for values in found):
            raise ValueError("an example comes twice")  # noqa: TRY301  (told as any other nonsense)
        return {values.key: values for values in found}
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        # digests tell damage, not whether the one who wrote both files wrote sense
        reason = in_one_line(error, 120)
        raise BenchError(f"the evidence in {folder} cannot be read ({reason}); run the evaluation again.") from error


@lru_cache(maxsize=8)  # a board's runs have one suite, and checking its parameters takes longer than reading a run
def _protocol_of(suite: str) -> Protocol:
    return protocol_for(Suite(SuiteFile.model_validate_json(suite), Path("manifest.json")))


def row_values(folder: Path, rows: pd.DataFrame) -> dict[MetricKey, ExampleValues]:
    """As `run_values`, only for metrics whose mean over the examples is what the leaderboard's row says, or that are
    undefined on every example and so have no row."""
    values = run_values(folder)
    said = dict(zip(keys_of(rows), rows["value"], strict=True))
    found = {key: values[key] for key, value in said.items() if key in values and agreeing(values[key], value, folder)}
    return found | {key: one for key, one in values.items() if key not in said and one.values.isna().all()}


def agreeing(found: ExampleValues, value: float, folder: Path) -> bool:
    """Whether the mean over the examples is the value that a leaderboard's row has; both may be NaN."""
    mean = mean_value(found.values.to_numpy(np.float64))
    if np.isclose(mean, value, rtol=1e-5, atol=1e-6, equal_nan=True):
        return True
    logger.warning("%s of run %s is %.6g, its records say %.6g", found.key, folder.name, value, mean)
    return False


def evidence_doubt(folder: Path, rows: pd.DataFrame) -> str:
    """What the rows of a run say that its manifest, or its records computed again, do not; empty where all agree.

    Raises:
        BenchError: the evidence is missing, damaged or changed.
    """
    manifest, records = read_evidence(folder)
    doubt = row_doubt(manifest, rows)
    if doubt:
        return doubt
    try:
        again = _protocol_of(manifest.suite.model_dump_json()).metrics(manifest.config.dataset, records)
    except (BenchError, LookupError, TypeError, ValueError, AttributeError) as error:
        # a suite of an older version; whether records make sense, those who read them find out
        logger.info("the metrics of %s are not computed again: %s", folder, error)
        return ""
    computed = {metric.key: metric.value for metric in again}
    for key, value in zip(keys_of(rows), rows["value"], strict=True):
        if key in computed and not np.isclose(value, computed[key], rtol=1e-5, atol=1e-9, equal_nan=True):
            said = f"{key} is {as_written(value)}, its records say {as_written(computed[key])}"
            return f"the rows of run {manifest.run_id} are not what its records say: {said}"
    return ""
