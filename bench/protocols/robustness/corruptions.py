"""corruptions: accuracy under common corruptions at five severities; see bench.attacks.corruptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field

from bench.attacks.corruptions import SEVERITIES, Corruption, corrupt
from bench.attacks.losses import answers
from bench.core.toml_files import Section, validate
from bench.leaderboard.metrics import Metric, share
from bench.leaderboard.statistics.example_values import ExampleValues, mean_metrics
from bench.protocols.base import EvaluationContext, Protocol, UnitResult
from bench.protocols.clean_pass import clean_pass
from bench.protocols.robustness.robust_records import clean_accuracy

if TYPE_CHECKING:
    import pandas as pd


class Parameters(Section):
    corruptions: list[Corruption] = Field(min_length=1, max_length=100)


class Corruptions(Protocol):
    """Accuracy per corruption and severity, per corruption, and over all of them.

    Rows: one per example, corruption (`attack`) and severity, with the model's answer and whether it is wrong.
    """

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any], where: str) -> Corruptions:
        return cls(validate(Parameters, parameters, where))

    def require_dataset(self, name: str) -> None:
        """Every data set can be corrupted."""

    def work(self, dataset: str, count: int) -> int:  # noqa: ARG002
        return count * len(self.parameters.corruptions) * len(SEVERITIES)

    def evaluate(self, context: EvaluationContext) -> UnitResult:
        import pandas as pd

        images, labels = context.images(), context.labels()
        predictions, findings = clean_pass(
            context.model, context.model_name, images, context.dataset.num_classes, context.batch_size
        )
        ids = context.example_ids.to(context.device)
        frames = []
        for corruption in self.parameters.corruptions:
            for severity in SEVERITIES:
                said = []
                for part in torch.split(torch.arange(len(images), device=images.device), context.batch_size):
                    with torch.no_grad():
                        corrupted = corrupt(images[part], ids[part], corruption, severity, context.seed)
                        said.append(answers(context.model(corrupted)).cpu())
                answer = torch.cat(said)
                frames.append(
                    pd.DataFrame(
                        {
                            "example_id": context.example_ids.numpy(),
                            "label": labels.numpy(),
                            "prediction": predictions.numpy(),
                            "attack": corruption,
                            "severity": severity,
                            "corrupted_prediction": answer.numpy(),
                            "broken": (answer != labels).numpy(),
                        }
                    )
                )
                context.on_progress(len(labels))
        records = pd.concat(frames, ignore_index=True)
        unanswered = records.loc[records["corrupted_prediction"] == -1, "example_id"].nunique()
        return UnitResult(records, {"non_finite_logits": unanswered}, findings)

    def metrics(self, dataset: str, records: pd.DataFrame) -> list[Metric]:  # noqa: ARG002
        kinds: dict[str, pd.DataFrame] = {
            name: records[records["attack"] == name] for name in self.parameters.corruptions
        }
        means = _mean_accuracies({**kinds, "all": records})
        metrics = [clean_accuracy(records)]
        for corruption, of_kind in kinds.items():
            for severity in SEVERITIES:
                broken = of_kind.loc[of_kind["severity"] == severity, "broken"]
                name = f"corruption_accuracy_{severity}"
                metrics.append(share(name, int((~broken).sum()), len(broken), attack=corruption))
            metrics.append(means[corruption])
        return [*metrics, means["all"]]


def _mean_accuracies(kinds: Mapping[str, pd.DataFrame]) -> dict[str, Metric]:
    """Means over severities and corruptions, with intervals over examples, whose rows hang together."""
    found = mean_metrics(
        [
            ExampleValues("corruption_accuracy", 1.0 - rows.groupby("example_id")["broken"].mean(), attack)
            for attack, rows in kinds.items()
        ]
    )
    # Student's interval of few examples knows no bounds
    return {one.attack: replace(one, ci_low=max(0.0, one.ci_low), ci_high=min(1.0, one.ci_high)) for one in found}
