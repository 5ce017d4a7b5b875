"""What protocols share that run several attacks in turn, each on the examples its forerunners left standing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from bench.attacks.verification import AttackResults
from bench.core.names import unknown_name
from bench.core.threat import NORMS, Norm
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import ExampleValues, MetricKey
from bench.protocols.base import Dependency, EvaluationContext, Protocol, UnitResult, clean_accuracy
from bench.protocols.clean_pass import clean_pass
from bench.protocols.robustness.masking import SQUARE_GAINED, masking_findings, probe, probed_norm, transfer_dependency
from bench.protocols.robustness.robust_records import (
    ReferenceRadii,
    robust_accuracies,
    robust_rows,
    union_accuracy,
)

if TYPE_CHECKING:
    import pandas as pd


class Ensemble(Protocol):
    """Robust accuracy under several attacks at the reference radii, after each of them, and the union over norms.

    Rows named after the ensemble hold the verdict of all examples; rows named after an attack those of the examples
    it was given, which are the ones that still stood.
    """

    ensemble: ClassVar[str]
    probe_every: ClassVar[int]
    probe_counts: ClassVar[bool] = True
    """Whether what the probe's white-box attacks break is broken."""
    datasets: dict[str, ReferenceRadii]

    @abstractmethod
    def attacks(self, norm: Norm) -> Sequence[str]:
        """The attacks of a norm, in their order."""

    @abstractmethod
    def attack(
        self,
        name: str,
        context: EvaluationContext,
        images: Tensor,
        norm: Norm,
        eps: float,
        all_results: tuple[AttackResults, ...],
    ) -> Tensor:
        """Attack what the first results show standing, record in all; returns (n,) bool, what was attacked."""

    def remarks(self, context: EvaluationContext) -> list[Finding]:  # noqa: ARG002
        """Further findings of a work unit."""
        return []

    def require_dataset(self, name: str) -> None:
        if name not in self.datasets:
            raise unknown_name(name, self.datasets, "data set for this suite")

    def dependencies(self, dataset: str, model_name: str, registry: Path | None) -> dict[str, Dependency]:
        return transfer_dependency(dataset, model_name, registry)

    def work(self, dataset: str, count: int) -> int:
        return count * sum(len(self.attacks(norm)) for norm in self.reference(dataset))

    def reference(self, dataset: str) -> dict[Norm, float]:
        reference = self.datasets[dataset].reference
        return {norm: reference[norm] for norm in NORMS if norm in reference}

    def evaluate(self, context: EvaluationContext) -> UnitResult:
        import pandas as pd

        images, labels = context.images(), context.labels()
        predictions, findings = clean_pass(
            context.model, context.model_name, images, context.dataset.num_classes, context.batch_size
        )
        total = AttackResults.start(predictions, labels)
        frames, gained, reference = [], 0, self.reference(context.dataset.name)
        for norm, eps in reference.items():
            for name in self.attacks(norm):
                own = AttackResults.start(predictions, labels)
                given = self.attack(name, context, images, norm, eps, (total, own))
                frames.append(robust_rows(context, name, {norm: [eps]}, predictions, own, given))
                if norm == probed_norm(reference):
                    gained += self._gained_by_black_box(name, frames[-1])
                context.on_progress(len(labels))
        radii = {norm: [eps] for norm, eps in reference.items()}
        probed = probe(
            context, images, predictions, [total], reference, every=self.probe_every,
            into=[total] if self.probe_counts else [],
        )  # fmt: skip
        frames.append(robust_rows(context, self.ensemble, radii, predictions, total))
        counters = total.counters() | probed
        # the probe's short Square attack finds nothing where a long one has been: what that one gained counts
        counters[SQUARE_GAINED] = counters.get(SQUARE_GAINED, 0) + gained
        return UnitResult(pd.concat(frames, ignore_index=True), counters, findings + self.remarks(context))

    def _gained_by_black_box(self, name: str, rows: pd.DataFrame) -> int:  # noqa: ARG002
        """How many images a black-box attack broke after white-box ones had been at them."""
        return 0

    def findings(self, counters: dict[str, int]) -> list[Finding]:
        return masking_findings(counters)

    def example_values(self, dataset: str, records: pd.DataFrame) -> list[ExampleValues]:
        verdicts = records[records["attack"] == self.ensemble]
        found = [clean_accuracy(verdicts)]
        for norm, eps in self.reference(dataset).items():
            of_attacks = records[(records["norm"] == norm) & (records["attack"] != self.ensemble)]
            ids = verdicts.loc[verdicts["norm"] == norm, "example_id"]
            # an example counts as standing until an attack that was given it has broken it
            standing = ids.isin(of_attacks["example_id"]).set_axis(ids)
            for name in self.attacks(norm):
                broken = of_attacks.loc[(of_attacks["attack"] == name) & of_attacks["broken"], "example_id"]
                standing &= ~standing.index.isin(broken)
                key = MetricKey("robust_accuracy_after", attack=name, norm=norm, eps=eps)
                found.append(ExampleValues(key, standing.copy(), "descriptive", "share"))
        found += robust_accuracies(verdicts, self.ensemble)
        return found + union_accuracy(verdicts, self.reference(dataset), self.ensemble)
