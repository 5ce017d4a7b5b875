"""union: the worst case over norms, per example, at the reference radii; the cascade in each norm.

Source of the measure: Tramer and Boneh, "Adversarial training and robustness for multiple perturbations", 2019.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bench.attacks.cascade import Cascade, Stage
from bench.attacks.verification import AttackResults
from bench.core.toml_files import validate
from bench.leaderboard.evidence.records import ROBUSTNESS_COLUMNS
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import ExampleValues, MetricKey
from bench.protocols.base import EvaluationContext, UnitResult, clean_accuracy
from bench.protocols.clean_pass import clean_pass
from bench.protocols.robustness.autoattack_fast import AutoAttackFast, Parameters
from bench.protocols.robustness.robust_records import survival

if TYPE_CHECKING:
    import pandas as pd


class Union(AutoAttackFast):
    """Union accuracy, and how many of the examples each norm was the first to break.

    An example that one norm has broken is not attacked in the next, so this costs less than the norms one by one.
    Rows: one per example, norm `all`, no radius and no distance; `found_in_norm` is the norm that broke it.
    """

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any], where: str) -> Union:
        return cls(validate(Parameters, parameters, where))

    def evaluate(self, context: EvaluationContext) -> UnitResult:
        import pandas as pd

        images, labels = context.images(), context.labels()
        predictions, findings = clean_pass(
            context.model, context.model_name, images, context.dataset.num_classes, context.batch_size
        )
        standing = predictions == labels
        found = [""] * len(labels)
        answers = torch.where(standing, -1, predictions)
        counters = dict.fromkeys(AttackResults.start(predictions, labels).counters(), 0)
        stages = tuple(Stage(**section.model_dump()) for section in self.parameters.stages)
        for norm, eps in self._reference(context.dataset.name).items():
            left = standing.nonzero().squeeze(1)
            results = AttackResults.start(predictions[left], labels[left])
            if len(left):
                here = left.to(context.device)
                truth, ids = labels[left].to(context.device), context.example_ids[left].to(context.device)
                Cascade(
                    context.model, images[here], truth, ids, norm, eps, stages, results,
                    seed=context.seed, batch_size=context.batch_size,
                    check_every=2 if context.device.type == "cpu" else 5, precision=context.precision,
                ).run()  # fmt: skip
            context.on_progress(len(stages) * len(labels))
            broken = results.broken(norm, eps)
            for example in left[broken].tolist():
                found[example] = norm
            answers[left[broken]] = results.predictions[norm][broken]
            standing[left[broken]] = False
            counters = {name: counters[name] + value for name, value in results.counters().items()}
        rows = {
            "example_id": context.example_ids.numpy(),
            "label": labels.numpy(),
            "prediction": predictions.numpy(),
            "attack": "cascade",
            "norm": "all",
            "eps": float("nan"),
            "broken": (~standing).numpy(),
            "distance": float("nan"),
            "adversarial_prediction": answers.numpy(),
            "found_in_norm": found,
        }
        return UnitResult(pd.DataFrame(rows).astype(ROBUSTNESS_COLUMNS), counters, findings)

    def findings(self, counters: dict[str, int]) -> list[Finding]:  # noqa: ARG002
        return []

    def example_values(self, dataset: str, records: pd.DataFrame) -> list[ExampleValues]:
        by_id = records.set_index("example_id")
        first = [
            ExampleValues(
                MetricKey("first_broken", attack="cascade", norm=norm), by_id["found_in_norm"] == norm, "descriptive",
                "share",
            )
            for norm in self._reference(dataset)
        ]  # fmt: skip
        union = MetricKey("union_accuracy", attack="cascade", norm="all")
        return [clean_accuracy(records), *first, survival(union, by_id["broken"])]
