"""What a plug-in's protocol returns, checked before it is written: evidence that nobody could read is no evidence."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
from pydantic import TypeAdapter

from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import Metric

if TYPE_CHECKING:
    from bench.protocols.base import UnitResult

_FINDINGS = TypeAdapter(list[Finding])


def checked_result(result: UnitResult) -> UnitResult:
    """The result with counters and findings in Python's own types; raises TypeError or ValueError where it has none."""
    if not isinstance(getattr(result, "records", None), pd.DataFrame):
        raise TypeError(f"evaluate returns {type(result).__name__}, and not a UnitResult of a table of records")
    pa.Table.from_pandas(result.records, preserve_index=False)  # raises where a column cannot be stored
    counters = {str(name): operator.index(count) for name, count in result.counters.items()}
    findings = _FINDINGS.validate_python([asdict(one) for one in result.findings], strict=True)
    return replace(result, counters=counters, findings=findings)


def checked_metrics(metrics: Iterable[Metric], examples: int) -> list[Metric]:
    """The metrics in Python's own numbers; raises ValueError where a share is none, or none is over all examples."""
    found = [
        replace(
            one, value=float(one.value), ci_low=float(one.ci_low), ci_high=float(one.ci_high),
            n_examples=operator.index(one.n_examples),
        )
        for one in metrics
    ]  # fmt: skip
    if odd := [one for one in found if one.unit == "share" and not (one.value != one.value or 0 <= one.value <= 1)]:
        raise ValueError(f"{odd[0].key} is a share and {odd[0].value:g}, which is not in [0, 1]")
    if max((one.n_examples for one in found), default=0) != examples:
        raise ValueError(f"no metric is over all {examples} examples of the run, as clean_accuracy(records) would be")
    return found
