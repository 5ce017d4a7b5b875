"""Finished runs example by example, whatever protocol made them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.catalog.suites import Suite, SuiteFile
from bench.core.errors import BenchError
from bench.leaderboard.evidence.doubts import row_doubt
from bench.leaderboard.evidence.evidence import read_evidence, robust_values
from bench.leaderboard.statistics.example_values import ExampleValues
from bench.leaderboard.table import as_written
from bench.protocols import protocol_for

logger = logging.getLogger(__name__)

Key = tuple[str, str, str, float | None]


def run_values(folder: Path) -> dict[Key, ExampleValues]:
    """Per-example values of a run's metrics, by (metric, attack, norm, eps).

    Raises:
        BenchError: the evidence is missing, damaged or changed.
    """
    manifest, records = read_evidence(folder)
    try:
        return _by_key(_values(manifest, records, folder))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        # digests tell damage, not whether the one who wrote both files wrote sense
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise BenchError(f"the evidence in {folder} makes no sense ({reason}); run the evaluation again.") from error


def _by_key(found: list[ExampleValues]) -> dict[Key, ExampleValues]:
    if not all(values.values.index.is_unique for values in found):
        raise ValueError("an example comes twice")
    return {values.key: values for values in found}


def _values(manifest: dict[str, Any], records: pd.DataFrame, folder: Path) -> list[ExampleValues]:
    file = SuiteFile.model_validate(manifest["suite"])
    dataset = str(manifest["facts"]["dataset"])
    if {"broken", "norm", "eps"} <= set(records.columns):
        section = file.parameters.get("datasets", {}).get(dataset, {})
        reference = section.get("reference", {}) if isinstance(section, dict) else {}
        return robust_values(records, reference if isinstance(reference, dict) else {})
    own = getattr(protocol_for(Suite(file, folder)), "example_values", None)
    return [] if own is None else list(own(dataset, records))


def row_values(folder: Path, rows: pd.DataFrame) -> dict[Key, ExampleValues]:
    """As `run_values`, only for metrics whose mean over the examples is what the leaderboard's row says."""
    values = run_values(folder)
    kept = {}
    for row in rows.itertuples():
        eps = None if pd.isna(row.eps) else float(row.eps)  # type: ignore[arg-type]
        key: Key = (str(row.metric), str(row.attack), str(row.norm), eps)
        found = values.get(key) or _nearby(values, key)
        if found is None:
            continue
        mean, value = float(np.nanmean(found.values)), float(row.value)  # type: ignore[arg-type]
        if np.isclose(mean, value, rtol=1e-5, atol=1e-6):
            kept[key] = found
        else:
            name = " ".join(part for part in key[:3] if part)
            logger.warning("%s of run %s is %.6g, its records say %.6g", name, folder.name, value, mean)
    return kept


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
        protocol = protocol_for(Suite(SuiteFile.model_validate(manifest["suite"]), folder))
        again = protocol.metrics(str(manifest["facts"]["dataset"]), records)
    except (BenchError, LookupError, TypeError, ValueError, AttributeError) as error:
        # a suite of an older version; whether records make sense, those who read them find out
        logger.info("the metrics of %s are not computed again: %s", folder, error)
        return ""
    computed = {(one.metric, one.attack, one.norm, as_written(one.eps)): one.value for one in again}
    wrong = [
        f"{' '.join(part for part in key if part)} is {as_written(value)}, its records say {as_written(computed[key])}"
        for row in rows.itertuples()
        if (key := (str(row.metric), str(row.attack), str(row.norm), as_written(row.eps))) in computed
        and not np.isclose(value := float(row.value), computed[key], rtol=1e-5, atol=1e-9, equal_nan=True)  # type: ignore[arg-type]
    ]
    return f"the rows of run {manifest['run_id']} are not what its records say: {wrong[0]}" if wrong else ""


def _nearby(values: dict[Key, ExampleValues], key: Key) -> ExampleValues | None:
    """The CSV has six digits of a radius such as 8/255."""
    for other, found in values.items():
        if other[:3] == key[:3] and other[3] is not None and key[3] is not None and np.isclose(other[3], key[3], 1e-5):
            return found
    return None
