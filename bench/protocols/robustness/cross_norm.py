"""cross_norm: robust accuracy in several norms at several radii, under every attack that the suite names.

Source: IR, section 5 (cross-norm attacks), with verification and the closure over nested balls added.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from bench.attacks.adapters.torchattacks import TorchattacksSettings, check_settings, run_torchattacks
from bench.attacks.losses import LossName
from bench.attacks.sweep.restarts import SweepSettings
from bench.attacks.sweep.sweep import NormSweep
from bench.attacks.verification import AttackResults
from bench.catalog.cards import NAME
from bench.core.bounds import Steps
from bench.core.errors import BenchError
from bench.core.names import unknown_name
from bench.core.threat import NORMS, Norm
from bench.core.toml_files import Section, validate
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import ExampleValues
from bench.protocols.base import Dependency, EvaluationContext, Protocol, UnitResult, clean_accuracy
from bench.protocols.clean_pass import clean_pass
from bench.protocols.robustness.masking import masking_findings, probe, transfer_dependency
from bench.protocols.robustness.robust_records import (
    Radii,
    bad_gradients,
    robust_accuracies,
    robust_rows,
    union_accuracy,
)

if TYPE_CHECKING:
    import pandas as pd


PROBE_EVERY = 8
"""One image in so many is probed for gradient masking, about a tenth of the run's time."""


class SweepAttack(Section):
    """Our own attack over all norms and radii; see bench.attacks.sweep, and its `restarts` for the fields."""

    kind: Literal["sweep"]
    name: str = NAME
    steps: Steps
    losses: tuple[LossName, ...] = Field(min_length=1, max_length=100, strict=False)
    patience: int = Field(ge=0, lt=1 << 31)
    targets: dict[Norm, Steps] = Field(default_factory=dict)
    polish: int = Field(default=0, ge=0, le=100_000)


_Number = Field(ge=-1e7, le=1e7)
Setting = bool | Annotated[int, _Number] | Annotated[float, _Number] | str


class TorchattacksAttack(Section):
    """An attack of torchattacks in one norm; see bench.attacks.adapters.torchattacks."""

    kind: Literal["torchattacks"]
    name: str = NAME
    class_name: str
    norm: Norm
    parameters: dict[str, Setting] = Field(default_factory=dict)
    relative_parameters: dict[str, Annotated[float, _Number]] = Field(default_factory=dict)


Attack = Annotated[SweepAttack | TorchattacksAttack, Field(discriminator="kind")]


class Parameters(Section):
    attacks: list[Attack] = Field(min_length=1, max_length=100)
    datasets: dict[str, Radii] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Parameters:
        names = [attack.name for attack in self.attacks]
        if len(set(names)) != len(names) or "worst" in names:
            raise ValueError("attacks need names that differ, and none may be called 'worst'")
        return self


class CrossNorm(Protocol):
    """Clean accuracy, robust accuracy per norm and radius, and the union over norms at the reference radii."""

    search_takes_precision = True

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.needs_gradients = any(isinstance(attack, SweepAttack) for attack in parameters.attacks)

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any], where: str) -> CrossNorm:
        protocol = cls(validate(Parameters, parameters, where))
        for attack in protocol.parameters.attacks:
            if isinstance(attack, TorchattacksAttack):
                check_settings(_torchattacks_settings(attack, 0))
        return protocol

    def require_dataset(self, name: str) -> None:
        if name not in self.parameters.datasets:
            raise unknown_name(name, self.parameters.datasets, "data set for this suite")
        for attack in self.parameters.attacks:
            if isinstance(attack, TorchattacksAttack) and attack.norm not in self.parameters.datasets[name].radii:
                raise BenchError(
                    f"attack {attack.name} works in {attack.norm}, for which {name} has no radii in this suite."
                )

    def dependencies(self, dataset: str, model_name: str, registry: Path | None) -> dict[str, Dependency]:
        return transfer_dependency(dataset, model_name, registry)

    def work(self, dataset: str, count: int) -> int:
        norms = len(self.parameters.datasets[dataset].radii)
        return count * sum(norms if isinstance(attack, SweepAttack) else 1 for attack in self.parameters.attacks)

    def evaluate(self, context: EvaluationContext) -> UnitResult:
        import pandas as pd

        images, labels = context.images(), context.labels()
        predictions, findings = clean_pass(
            context.model, context.model_name, images, context.dataset.num_classes, context.batch_size
        )
        all_results = [AttackResults.start(predictions, labels) for _ in self.parameters.attacks]
        attacks = list(zip(self.parameters.attacks, all_results, strict=True))
        for attack, results in attacks:
            self._run(attack, context, images, results)
        sweeps = [results for attack, results in attacks if isinstance(attack, SweepAttack)]
        reference = self._radii(context).reference
        counters = probe(context, images, predictions, all_results, reference, every=PROBE_EVERY, into=sweeps)
        frames = []
        for attack, results in attacks:
            radii = {norm: self._radii(context).radii[norm] for norm in self._norms(attack, context)}
            frames.append(robust_rows(context, attack.name, radii, predictions, results))
            for name, value in results.counters().items():
                counters[name] = counters.get(name, 0) + value
        if counters["bad_gradients"]:
            findings.append(bad_gradients(counters["bad_gradients"], counters["gradient_evaluations"]))
        return UnitResult(pd.concat(frames, ignore_index=True), counters, findings)

    def _radii(self, context: EvaluationContext) -> Radii:
        return self.parameters.datasets[context.dataset.name]

    def _norms(self, attack: Attack, context: EvaluationContext) -> list[Norm]:
        if isinstance(attack, TorchattacksAttack):
            return [attack.norm]
        return [norm for norm in NORMS if norm in self._radii(context).radii]

    def _run(self, attack: Attack, context: EvaluationContext, images: Any, results: AttackResults) -> None:
        labels, ids = context.labels().to(context.device), context.example_ids.to(context.device)
        for norm in self._norms(attack, context):
            radii = self._radii(context).radii[norm]
            if isinstance(attack, TorchattacksAttack):
                settings = _torchattacks_settings(attack, context.seed)
                run_torchattacks(
                    context.model, images, labels, ids, radii, settings, results,
                    batch_size=context.batch_size, on_progress=context.on_progress,
                )  # fmt: skip
                continue
            NormSweep(
                context.model,
                images,
                labels,
                ids,
                norm,
                radii,
                SweepSettings(
                    attack.steps,
                    attack.losses,
                    attack.patience,
                    context.seed,
                    attack.targets.get(norm, 0),
                    attack.polish,
                ),
                results,
                batch_size=context.batch_size,
                check_every=2 if context.device.type == "cpu" else 5,
                on_progress=context.on_progress,
                precision=context.precision,
            ).run()

    def findings(self, counters: dict[str, int]) -> list[Finding]:
        return masking_findings(counters)

    def example_values(self, dataset: str, records: pd.DataFrame) -> list[ExampleValues]:
        names = [attack.name for attack in self.parameters.attacks]
        found = [clean_accuracy(records)]
        for name in names:
            found += robust_accuracies(records[records["attack"] == name], name)
        worst = records.groupby(["example_id", "norm", "eps"], observed=True)["broken"].any().reset_index()
        attack = names[0]
        if len(names) > 1:
            attack = "worst"
            found += robust_accuracies(worst, attack)
        return found + union_accuracy(worst, self.parameters.datasets[dataset].reference, attack)


def _torchattacks_settings(attack: TorchattacksAttack, seed: int) -> TorchattacksSettings:
    fields = {field.name for field in dataclasses.fields(TorchattacksSettings)} - {"seed"}
    return TorchattacksSettings(**attack.model_dump(include=fields), seed=seed)
