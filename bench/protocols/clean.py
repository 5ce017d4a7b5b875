"""clean: accuracy without any attack, on as many images as there are; what accuracy is to be matched by."""

from __future__ import annotations

import pandas as pd

from bench.leaderboard.metrics import ExampleValues
from bench.protocols.base import EvaluationContext, Protocol, UnitResult, clean_accuracy
from bench.protocols.robustness.rows import example_columns


class Clean(Protocol):
    """Whether each image is classified right; rows: one per example."""

    def work(self, dataset: str, count: int) -> int:  # noqa: ARG002
        return count

    def evaluate(self, context: EvaluationContext) -> UnitResult:
        predictions, findings = context.clean_pass()
        records = pd.DataFrame(example_columns(context, predictions)).astype("int32")
        context.on_progress(len(records))
        return UnitResult(records, {}, findings)

    def example_values(self, dataset: str, records: pd.DataFrame) -> list[ExampleValues]:  # noqa: ARG002
        return [clean_accuracy(records)]
