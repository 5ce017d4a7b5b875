"""autoattack: AutoAttack's versions at one radius per norm, with the verdict of each component.

APGD, FAB-T and Square are our own writing of the distribution's, with its settings, and tested against it one by one.
In the standard version FAB-T gives up an image's target class, and Square an image, whose progress so far, with much
slack, cannot reach the radius; `plus`, the suite blackbox and a suite file with `patient = true` spend all of them.
Source: Croce and Hein, ICML 2020 and ICML 2021; Andriushchenko et al., ECCV 2020; see
bench.attacks.autoattack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pydantic import Field

from bench.attacks.adapters.pyautoattack import (
    AutoAttackSettings,
    Component,
    Version,
    components_of,
    import_pyautoattack,
)
from bench.attacks.autoattack import run_component
from bench.core.bounds import Queries, Steps
from bench.core.toml_files import Section, validate
from bench.leaderboard.findings import Finding
from bench.protocols.base import EvaluationContext
from bench.protocols.robustness.ensemble import Ensemble
from bench.protocols.robustness.robust_records import ReferenceRadii

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from bench.attacks.verification import AttackResults
    from bench.core.threat import Norm


class Parameters(Section):
    version: Version
    iterations: Steps | None = None
    queries: Queries | None = None
    patient: bool = False
    datasets: dict[str, ReferenceRadii] = Field(min_length=1)


class AutoAttack(Ensemble):
    """Robust accuracy under AutoAttack."""

    ensemble = "autoattack"
    needs_gradients = True
    probe_every = 1

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.datasets = parameters.datasets

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any], where: str) -> AutoAttack:
        import_pyautoattack()
        return cls(validate(Parameters, parameters, where))

    def attacks(self, norm: Norm) -> tuple[Component, ...]:
        return components_of(self.parameters.version, norm)

    def attack(
        self,
        name: str,
        context: EvaluationContext,
        images: Tensor,
        norm: Norm,
        eps: float,
        all_results: tuple[AttackResults, ...],
    ) -> Tensor:
        version, iterations, queries = self.parameters.version, self.parameters.iterations, self.parameters.queries
        return run_component(
            cast(Component, name),
            context.model,
            images,
            context.labels(),
            context.example_ids,
            AutoAttackSettings(norm, eps, version, iterations, queries, context.seed, self.parameters.patient),
            all_results,
            num_classes=context.dataset.num_classes,
            batch_size=context.batch_size,
        )

    def remarks(self, context: EvaluationContext) -> list[Finding]:
        classes = context.dataset.num_classes
        if classes >= 4:
            return []
        return [
            Finding(
                "few_classes",
                "note",
                f"{classes} classes, for which AutoAttack's DLR losses are not defined",
                "the margin over the spread of the logits there are takes their place; nothing needs to be done",
            )
        ]

    def _gained_by_black_box(self, name: str, rows: pd.DataFrame) -> int:
        return int(rows["broken"].sum()) if name == "square" else 0
