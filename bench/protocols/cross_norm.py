"""cross_norm: robust accuracy in several norms at several radii, under every attack that the suite names.

Source: IR, section 5 (cross-norm attacks), with verification and the closure over nested balls added.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bench.attacks.losses import LossName
from bench.attacks.sweep import NormSweep, SweepSettings
from bench.attacks.torchattacks_adapter import TorchattacksSettings, check_settings, run_torchattacks
from bench.attacks.verification import Ledger
from bench.catalog.toml_files import validate
from bench.core.errors import BenchError
from bench.core.names import unknown_name
from bench.core.threat import NORMS, Norm
from bench.protocols.base import EvaluationContext, Protocol, UnitResult
from bench.protocols.clean_pass import clean_pass
from bench.results.findings import Finding
from bench.results.metrics import Metric, share
from bench.results.records import ROBUSTNESS_COLUMNS

if TYPE_CHECKING:
    import pandas as pd


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SweepAttack(_Section):
    """Our own attack over all norms and radii; see bench.attacks.sweep."""

    kind: Literal["sweep"]
    name: str
    steps: int = Field(gt=0)
    losses: tuple[LossName, ...] = Field(min_length=1)
    patience: int = Field(ge=0)


class TorchattacksAttack(_Section):
    """An attack of torchattacks in one norm; see bench.attacks.torchattacks_adapter."""

    kind: Literal["torchattacks"]
    name: str
    class_name: str
    norm: Norm
    parameters: dict[str, Any] = Field(default_factory=dict)
    relative_parameters: dict[str, float] = Field(default_factory=dict)


Attack = Annotated[SweepAttack | TorchattacksAttack, Field(discriminator="kind")]
Radius = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Radii(_Section):
    """The radii of one data set, in pixels of [0, 1], and the one of each norm that the union is taken at."""

    radii: dict[Norm, Annotated[list[Radius], Field(min_length=1)]] = Field(min_length=1)
    reference: dict[Norm, Radius]

    @model_validator(mode="after")
    def _reference_is_among_radii(self) -> Radii:
        for norm, radii in self.radii.items():
            if len(set(radii)) != len(radii):
                raise ValueError(f"a radius of {norm} is given twice")
            if self.reference.get(norm) not in radii:
                raise ValueError(f"reference must name one of the radii of {norm}")
        if set(self.reference) != set(self.radii):
            raise ValueError("reference names a norm that has no radii")
        return self


class Parameters(_Section):
    attacks: list[Attack] = Field(min_length=1)
    datasets: dict[str, Radii] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Parameters:
        names = [attack.name for attack in self.attacks]
        if len(set(names)) != len(names) or "worst" in names:
            raise ValueError("attacks need names that differ, and none may be called 'worst'")
        return self


class CrossNorm(Protocol):
    """Clean accuracy, robust accuracy per norm and radius, and the union over norms at the reference radii."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

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

    def work(self, dataset: str, count: int) -> int:
        norms = len(self.parameters.datasets[dataset].radii)
        return count * sum(norms if isinstance(attack, SweepAttack) else 1 for attack in self.parameters.attacks)

    def evaluate(self, context: EvaluationContext) -> UnitResult:
        import pandas as pd

        images, labels = context.images(), context.labels()
        predictions, findings = clean_pass(
            context.model, context.model_name, images, context.dataset.num_classes, context.batch_size
        )
        frames, counters = [], {"gradient_evaluations": 0, "claims": 0, "rejected_claims": 0, "bad_gradients": 0}
        for attack in self.parameters.attacks:
            ledger = Ledger.start(predictions, labels)
            self._run(attack, context, images, ledger)
            frames.append(self._records(attack.name, self._norms(attack, context), context, predictions, ledger))
            counters["gradient_evaluations"] += ledger.gradient_evaluations
            counters["claims"] += ledger.claims
            counters["rejected_claims"] += ledger.rejected
            counters["bad_gradients"] += ledger.bad_gradients
        if counters["bad_gradients"]:
            findings.append(_bad_gradients(counters["bad_gradients"], counters["gradient_evaluations"]))
        return UnitResult(pd.concat(frames, ignore_index=True), counters, findings)

    def _radii(self, context: EvaluationContext) -> Radii:
        return self.parameters.datasets[context.dataset.name]

    def _norms(self, attack: Attack, context: EvaluationContext) -> list[Norm]:
        if isinstance(attack, TorchattacksAttack):
            return [attack.norm]
        return [norm for norm in NORMS if norm in self._radii(context).radii]

    def _run(self, attack: Attack, context: EvaluationContext, images: Any, ledger: Ledger) -> None:
        labels, ids = context.labels().to(context.device), context.example_ids.to(context.device)
        for norm in self._norms(attack, context):
            radii = self._radii(context).radii[norm]
            if isinstance(attack, TorchattacksAttack):
                settings = _torchattacks_settings(attack, context.seed)
                run_torchattacks(
                    context.model, images, labels, ids, radii, settings, ledger, on_progress=context.on_progress
                )
                continue
            NormSweep(
                context.model,
                images,
                labels,
                ids,
                norm,
                radii,
                SweepSettings(attack.steps, attack.losses, attack.patience, context.seed),
                ledger,
                batch_size=context.batch_size,
                check_every=2 if context.device.type == "cpu" else 5,
                on_progress=context.on_progress,
            ).run()

    def _records(
        self, attack: str, norms: list[Norm], context: EvaluationContext, predictions: Any, ledger: Ledger
    ) -> pd.DataFrame:
        import pandas as pd

        frames = [
            pd.DataFrame(
                {
                    "example_id": context.example_ids.numpy(),
                    "label": context.labels().numpy(),
                    "prediction": predictions.numpy(),
                    "attack": attack,
                    "norm": norm,
                    "eps": eps,
                    "broken": ledger.broken(norm, eps).numpy(),
                    "distance": ledger.distances[norm].numpy(),
                    "adversarial_prediction": ledger.predictions[norm].numpy(),
                    "found_in_norm": [NORMS[index] if index >= 0 else "" for index in ledger.found_in[norm].tolist()],
                }
            )
            for norm in norms
            for eps in self._radii(context).radii[norm]
        ]
        return pd.concat(frames, ignore_index=True).astype(ROBUSTNESS_COLUMNS)

    def metrics(self, dataset: str, records: pd.DataFrame) -> list[Metric]:
        names = [attack.name for attack in self.parameters.attacks]
        first = records.drop_duplicates("example_id")
        count = len(first)
        metrics = [share("clean_accuracy", int((first["label"] == first["prediction"]).sum()), count)]
        for name in names:
            metrics += _robust_accuracies(records[records["attack"] == name], name)
        worst = records.groupby(["example_id", "norm", "eps"], observed=True)["broken"].any().reset_index()
        attack = names[0]
        if len(names) > 1:
            attack = "worst"
            metrics += _robust_accuracies(worst, attack)
        reference = self.parameters.datasets[dataset].reference
        at_reference = worst[worst["eps"] == worst["norm"].astype(str).map(reference)]
        if at_reference["norm"].nunique() == len(reference):
            broken = at_reference.groupby("example_id")["broken"].any()
            metrics.append(share("union_accuracy", int((~broken).sum()), count, attack=attack, norm="all"))
        return metrics


def _robust_accuracies(records: pd.DataFrame, attack: str) -> list[Metric]:
    """Robust accuracy at every norm and radius, norms in the order of NORMS."""
    metrics = []
    for norm in NORMS:
        of_norm = records[records["norm"] == norm]
        for eps in sorted(set(of_norm["eps"].tolist())):
            broken = of_norm.loc[of_norm["eps"] == eps, "broken"]
            metrics.append(
                share("robust_accuracy", int((~broken).sum()), len(broken), attack=attack, norm=norm, eps=eps)
            )
    return metrics


def _bad_gradients(bad: int, total: int) -> Finding:
    return Finding(
        "bad_gradients",
        "warning",
        f"{bad} of {total} image gradients were NaN or infinite",
        "gradient attacks are blind there and the robust accuracy may be too high; mend the net's backward pass",
    )


def _torchattacks_settings(attack: TorchattacksAttack, seed: int) -> TorchattacksSettings:
    fields = {field.name for field in dataclasses.fields(TorchattacksSettings)} - {"seed"}
    return TorchattacksSettings(**attack.model_dump(include=fields), seed=seed)
