"""blackbox: attacks that need no gradient, Square on the logits and HopSkipJump on the decision.

What they find does not depend on gradients, so that a number far below the white-box one shows masking; on nets
without masking they are the weaker attacks.
Sources: Andriushchenko et al., ECCV 2020 (Square); Chen et al., S&P 2020 (HopSkipJump).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from bench.attacks.adapters.foolbox import import_foolbox, run_hop_skip_jump
from bench.attacks.adapters.pyautoattack import AutoAttackSettings, import_pyautoattack
from bench.attacks.autoattack import run_component
from bench.core.bounds import Queries, Steps
from bench.core.toml_files import Section, validate
from bench.protocols.base import EvaluationContext
from bench.protocols.robustness.ensemble import Ensemble
from bench.protocols.robustness.robust_records import ReferenceRadii

if TYPE_CHECKING:
    from torch import Tensor

    from bench.attacks.verification import AttackResults
    from bench.core.threat import Norm


class Parameters(Section):
    queries: Queries
    decision_steps: Steps
    datasets: dict[str, ReferenceRadii] = Field(min_length=1)


class BlackBox(Ensemble):
    """Robust accuracy under Square, then HopSkipJump (L-inf and L2 only) on what Square leaves standing."""

    ensemble = "blackbox"
    probe_every = 4
    probe_counts = False

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.datasets = parameters.datasets

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any], where: str) -> BlackBox:
        import_pyautoattack()
        import_foolbox()
        return cls(validate(Parameters, parameters, where))

    def attacks(self, norm: Norm) -> tuple[str, ...]:
        return ("square",) if norm == "l1" else ("square", "hop_skip_jump")

    def attack(
        self,
        name: str,
        context: EvaluationContext,
        images: Tensor,
        norm: Norm,
        eps: float,
        all_results: tuple[AttackResults, ...],
    ) -> Tensor:
        labels, ids, classes = context.labels(), context.example_ids, context.dataset.num_classes
        if name == "square":
            settings = AutoAttackSettings(norm, eps, queries=self.parameters.queries, seed=context.seed, patient=True)
            return run_component(
                "square", context.model, images, labels, ids, settings, all_results,
                num_classes=classes, batch_size=context.batch_size,
            )  # fmt: skip
        return run_hop_skip_jump(
            context.model, images, labels, ids, norm, eps, all_results,
            steps=self.parameters.decision_steps, num_classes=classes, batch_size=context.batch_size, seed=context.seed,
        )  # fmt: skip
