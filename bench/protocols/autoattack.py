"""autoattack: AutoAttack's versions at one radius per norm, with the verdict of each component.

Source: Croce and Hein, ICML 2020 and ICML 2021; see bench.attacks.pyautoattack_adapter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from bench.attacks.pyautoattack_adapter import (
    AutoAttackSettings,
    Component,
    Version,
    components_of,
    import_pyautoattack,
    run_component,
)
from bench.attacks.verification import Ledger
from bench.catalog.toml_files import validate
from bench.core.names import unknown_name
from bench.core.threat import NORMS, Norm
from bench.protocols.base import EvaluationContext, Protocol, UnitResult
from bench.protocols.clean_pass import clean_pass
from bench.protocols.masking import SQUARE_GAINED, masking_findings, probe, probed_norm
from bench.protocols.robust_records import (
    ReferenceRadii,
    Section,
    clean_accuracy,
    robust_accuracies,
    robust_rows,
    union_accuracy,
)
from bench.results.findings import Finding
from bench.results.metrics import Metric, share

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

ENSEMBLE = "autoattack"


class Parameters(Section):
    version: Version
    iterations: int | None = Field(default=None, gt=0)
    queries: int | None = Field(default=None, gt=0)
    datasets: dict[str, ReferenceRadii] = Field(min_length=1)


class AutoAttack(Protocol):
    """Robust accuracy under AutoAttack at the reference radii, after each component, and the union over norms.

    Rows named `autoattack` hold the verdict of all examples; rows named after a component those of the examples it
    was given, which are the ones that still stood.
    """

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any], where: str) -> AutoAttack:
        import_pyautoattack()
        return cls(validate(Parameters, parameters, where))

    def require_dataset(self, name: str) -> None:
        if name not in self.parameters.datasets:
            raise unknown_name(name, self.parameters.datasets, "data set for this suite")

    def work(self, dataset: str, count: int) -> int:
        return count * sum(len(self._components(norm)) for norm in self._reference(dataset))

    def evaluate(self, context: EvaluationContext) -> UnitResult:
        import pandas as pd

        images, labels = context.images(), context.labels()
        predictions, findings = clean_pass(
            context.model, context.model_name, images, context.dataset.num_classes, context.batch_size
        )
        ensemble = Ledger.start(predictions, labels)
        frames, gained, reference = [], 0, self._reference(context.dataset.name)
        for norm, eps in reference.items():
            settings = self._settings(norm, eps, context.seed)
            for component in self._components(norm):
                frames.append(self._run(component, settings, context, images, predictions, ensemble))
                if component == "square" and norm == probed_norm(reference):
                    gained += int(frames[-1]["broken"].sum())
                context.on_progress(len(labels))
        radii = {norm: [eps] for norm, eps in reference.items()}
        frames.append(robust_rows(context, ENSEMBLE, radii, predictions, ensemble))
        counters = ensemble.counters() | probe(context, images, predictions, [ensemble], reference, every=1)
        # the probe's short Square attack finds nothing where the long one has been: what that one gained counts
        counters[SQUARE_GAINED] = counters.get(SQUARE_GAINED, 0) + gained
        return UnitResult(pd.concat(frames, ignore_index=True), counters, findings + self._few_classes(context))

    def _run(
        self,
        component: Component,
        settings: AutoAttackSettings,
        context: EvaluationContext,
        images: Tensor,
        predictions: Tensor,
        ensemble: Ledger,
    ) -> pd.DataFrame:
        own = Ledger.start(predictions, context.labels())
        given = run_component(
            component,
            context.model,
            images,
            context.labels(),
            context.example_ids,
            settings,
            (ensemble, own),
            num_classes=context.dataset.num_classes,
            batch_size=context.batch_size,
        )
        return robust_rows(context, component, {settings.norm: [settings.eps]}, predictions, own, given)

    def _settings(self, norm: Norm, eps: float, seed: int) -> AutoAttackSettings:
        parameters = self.parameters
        return AutoAttackSettings(norm, eps, parameters.version, parameters.iterations, parameters.queries, seed)

    def _components(self, norm: Norm) -> tuple[Component, ...]:
        return components_of(self.parameters.version, norm)

    def _reference(self, dataset: str) -> dict[Norm, float]:
        reference = self.parameters.datasets[dataset].reference
        return {norm: reference[norm] for norm in NORMS if norm in reference}

    def _few_classes(self, context: EvaluationContext) -> list[Finding]:
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

    def findings(self, counters: dict[str, int]) -> list[Finding]:
        return masking_findings(counters)

    def metrics(self, dataset: str, records: pd.DataFrame) -> list[Metric]:
        reference = self._reference(dataset)
        verdicts = records[records["attack"] == ENSEMBLE]
        metrics = [clean_accuracy(verdicts)]
        for norm, eps in reference.items():
            of_norm = records[records["norm"] == norm]
            count = verdicts["example_id"].nunique()
            # an example counts as standing until a component that was given it has broken it
            unseen = set(of_norm["example_id"]) - set(of_norm.loc[of_norm["attack"] != ENSEMBLE, "example_id"])
            standing = count - len(unseen)
            for component in self._components(norm):
                standing -= int(of_norm.loc[of_norm["attack"] == component, "broken"].sum())
                metrics.append(share("robust_accuracy_after", standing, count, attack=component, norm=norm, eps=eps))
        metrics += robust_accuracies(verdicts, ENSEMBLE)
        return metrics + union_accuracy(verdicts, reference, ENSEMBLE)
