"""autoattack_fast: our cascade at one radius per norm, built to reach AutoAttack's verdicts at a part of its time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from bench.attacks.cascade import Cascade, Gate, Stage
from bench.attacks.verification import AttackResults
from bench.core.bounds import Steps
from bench.core.names import unknown_name
from bench.core.threat import NORMS, Norm
from bench.core.toml_files import Section, validate
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import ExampleValues
from bench.protocols.base import Dependency, EvaluationContext, Protocol, UnitResult, clean_accuracy
from bench.protocols.clean_pass import clean_pass
from bench.protocols.robustness.masking import masking_findings, probe, transfer_dependency
from bench.protocols.robustness.robust_records import (
    ReferenceRadii,
    bad_gradients,
    robust_accuracies,
    robust_rows,
    union_accuracy,
)

if TYPE_CHECKING:
    import pandas as pd

ATTACK = "cascade"


PROBE_EVERY = 8
"""One image in so many is probed for gradient masking, about a tenth of the run's time."""


class StageSection(Section):
    """One stage; see bench.attacks.cascade.Stage."""

    steps: Steps
    targets: int = Field(default=0, ge=0, lt=1 << 31)
    start: float = Field(default=1.0, ge=0, le=1)
    widen: float = Field(default=1.0, ge=1, le=100)
    within: float = Field(default=1.0, gt=0, le=1)
    gate: Gate = "target"
    dense: float = Field(default=1.0, gt=0, le=1)
    refine: bool = Field(default=False, alias="polish")
    first: float = Field(default=0.0, ge=0)
    norms: tuple[Norm, ...] = Field(default=NORMS, strict=False)


class Parameters(Section):
    stages: list[StageSection] = Field(min_length=1, max_length=100)
    datasets: dict[str, ReferenceRadii] = Field(min_length=1)


class AutoAttackFast(Protocol):
    """Robust accuracy under the cascade at the reference radii, and the union over norms."""

    needs_gradients = True
    search_takes_precision = True

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any], where: str) -> AutoAttackFast:
        return cls(validate(Parameters, parameters, where))

    def require_dataset(self, name: str) -> None:
        if name not in self.parameters.datasets:
            raise unknown_name(name, self.parameters.datasets, "data set for this suite")

    def dependencies(self, dataset: str, model_name: str, registry: Path | None) -> dict[str, Dependency]:
        return transfer_dependency(dataset, model_name, registry)

    def work(self, dataset: str, count: int) -> int:
        return count * len(self.parameters.stages) * len(self._reference(dataset))

    def evaluate(self, context: EvaluationContext) -> UnitResult:
        images, labels = context.images(), context.labels()
        predictions, findings = clean_pass(
            context.model, context.model_name, images, context.dataset.num_classes, context.batch_size
        )
        results = AttackResults.start(predictions, labels)
        stages = tuple(Stage(**section.model_dump()) for section in self.parameters.stages)
        reference = self._reference(context.dataset.name)
        for norm, eps in reference.items():
            Cascade(
                context.model,
                images,
                labels.to(context.device),
                context.example_ids.to(context.device),
                norm,
                eps,
                stages,
                results,
                seed=context.seed,
                batch_size=context.batch_size,
                check_every=2 if context.device.type == "cpu" else 5,
                on_stage=lambda _: context.on_progress(len(labels)),
                precision=context.precision,
            ).run()
        probed = probe(context, images, predictions, [results], reference, every=PROBE_EVERY, into=[results])
        records = robust_rows(context, ATTACK, {norm: [eps] for norm, eps in reference.items()}, predictions, results)
        counters = results.counters() | probed
        if results.bad_gradients:
            findings.append(bad_gradients(results.bad_gradients, results.gradient_evaluations))
        return UnitResult(records, counters, findings)

    def _reference(self, dataset: str) -> dict[Norm, float]:
        reference = self.parameters.datasets[dataset].reference
        return {norm: reference[norm] for norm in NORMS if norm in reference}

    def findings(self, counters: dict[str, int]) -> list[Finding]:
        return masking_findings(counters)

    def example_values(self, dataset: str, records: pd.DataFrame) -> list[ExampleValues]:
        found = [clean_accuracy(records), *robust_accuracies(records, ATTACK)]
        return found + union_accuracy(records, self._reference(dataset), ATTACK)
