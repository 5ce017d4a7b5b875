"""clean: accuracy without any attack, on as many images as there are; what accuracy is to be matched by."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bench.core.toml_files import Section, validate
from bench.leaderboard.metrics import ExampleValues
from bench.protocols.base import EvaluationContext, Protocol, UnitResult, clean_accuracy
from bench.protocols.clean_pass import clean_pass


class Clean(Protocol):
    """Whether each image is classified right; rows: one per example."""

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any], where: str) -> Clean:
        validate(Section, parameters, where)
        return cls()

    def require_dataset(self, name: str) -> None:
        """Any data set has clean images."""

    def work(self, dataset: str, count: int) -> int:  # noqa: ARG002
        return count

    def evaluate(self, context: EvaluationContext) -> UnitResult:
        predictions, findings = clean_pass(
            context.model, context.model_name, context.images(), context.dataset.num_classes,
            batch_size=context.batch_size,
        )  # fmt: skip
        columns = {"example_id": context.example_ids, "label": context.labels(), "prediction": predictions}
        records = pd.DataFrame({name: values.numpy().astype("int32") for name, values in columns.items()})
        context.on_progress(len(records))
        return UnitResult(records, {}, findings)

    def example_values(self, dataset: str, records: pd.DataFrame) -> list[ExampleValues]:  # noqa: ARG002
        return [clean_accuracy(records)]
