"""corruptions: accuracy under common corruptions at five severities; see bench.attacks.corruptions."""

from __future__ import annotations

import pandas as pd
import torch
from pydantic import Field

from bench.attacks.corruptions import SEVERITIES, Corruption, corrupt
from bench.attacks.losses import answers
from bench.core.toml_files import Section
from bench.leaderboard.metrics import ExampleValues, MetricKey, Prominence
from bench.protocols.base import EvaluationContext, Protocol, UnitResult, by_id, clean_accuracy
from bench.protocols.robustness.rows import example_columns

_HEADLINES = ("all", "contrast", "gaussian_blur", "gaussian_noise", "jpeg")


class Parameters(Section):
    corruptions: list[Corruption] = Field(min_length=1, max_length=100)


class Corruptions(Protocol):
    """Accuracy per corruption and severity, per corruption, and over all of them.

    Rows: one per example, corruption (`attack`) and severity, with the model's answer and whether it is wrong.
    """

    parameters_type = Parameters
    parameters: Parameters

    def work(self, dataset: str, count: int) -> int:  # noqa: ARG002
        return count * len(self.parameters.corruptions) * len(SEVERITIES)

    def evaluate(self, context: EvaluationContext) -> UnitResult:
        images, labels = context.images(), context.labels()
        predictions, findings = context.clean_pass()
        ids = context.example_ids.to(context.device)
        frames = []
        for corruption in self.parameters.corruptions:
            for severity in SEVERITIES:
                said = []
                for part in torch.split(torch.arange(len(images), device=images.device), context.batch_size):
                    with torch.no_grad():
                        corrupted = corrupt(images[part], ids[part], corruption, severity, seed=context.seed)
                        said.append(answers(context.model(corrupted)).cpu())
                answer = torch.cat(said)
                columns = example_columns(context, predictions) | {"attack": corruption, "severity": severity}
                columns |= {"corrupted_prediction": answer.numpy(), "broken": (answer != labels).numpy()}
                frames.append(pd.DataFrame(columns))
                context.on_progress(len(labels))
        records = pd.concat(frames, ignore_index=True)
        unanswered = records.loc[records["corrupted_prediction"] == -1, "example_id"].nunique()
        return UnitResult(records, {"non_finite_logits": unanswered}, findings)

    def example_values(self, dataset: str, records: pd.DataFrame) -> list[ExampleValues]:  # noqa: ARG002
        """Verdicts by corruption and severity; shares of an example's severities, whose rows hang together."""
        found = [clean_accuracy(records)]
        kinds, severities = records["attack"].to_numpy(object), records["severity"].to_numpy()
        records = records[["example_id", "broken"]]
        ids, stands = records["example_id"].to_numpy(), ~records["broken"].to_numpy(bool)
        for corruption in self.parameters.corruptions:
            of_kind = kinds == corruption
            for severity in SEVERITIES:
                rows = of_kind & (severities == severity)
                found.append(_accuracy(f"{corruption}/{severity}", by_id(ids[rows], stands[rows])))
            found.append(_accuracy(corruption, 1.0 - records[of_kind].groupby("example_id")["broken"].mean()))
        return [*found, _accuracy("all", 1.0 - records.groupby("example_id")["broken"].mean())]


def _accuracy(subject: str, values: pd.Series) -> ExampleValues:
    prominence: Prominence = "headline" if subject in _HEADLINES else "usual"
    return ExampleValues(MetricKey("corruption_accuracy", subject), values, "higher", "share", prominence=prominence)
