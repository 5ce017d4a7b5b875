"""Finished runs example by example, whatever protocol made them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.catalog.suites import Suite, SuiteFile
from bench.core.errors import BenchError
from bench.protocols import protocol_for
from bench.results.evidence import read_evidence, robust_values
from bench.results.example_values import ExampleValues

Key = tuple[str, str, str, float | None]


def run_values(folder: Path) -> dict[Key, ExampleValues]:
    """Per-example values of a run's metrics, by (metric, attack, norm, eps).

    Raises:
        BenchError: the evidence is missing, damaged or changed.
    """
    manifest, records = read_evidence(folder)
    try:
        return {values.key: values for values in _values(manifest, records, folder)}
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        # digests tell damage, not whether the one who wrote both files wrote sense
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise BenchError(f"the evidence in {folder} makes no sense ({reason}); run the evaluation again.") from error


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
        if found is not None and np.isclose(np.nanmean(found.values), float(row.value), rtol=1e-5, atol=1e-6):  # type: ignore[arg-type]
            kept[key] = found
    return kept


def _nearby(values: dict[Key, ExampleValues], key: Key) -> ExampleValues | None:
    """The CSV has six digits of a radius such as 8/255."""
    for other, found in values.items():
        if other[:3] == key[:3] and other[3] is not None and key[3] is not None and np.isclose(other[3], key[3], 1e-5):
            return found
    return None
