"""minimum_norm: how small the smallest perturbation is that the attacks find, in L-inf, L2, L1 and L0, per example.

L-inf, L2, L1: the sweep over a fine ladder of radii, whose ratio bounds how much too large a distance is.
L0: sigma-zero; it counts changed values, so that a colour pixel has three. All are upper bounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field

from bench.attacks.losses import LossName, answers
from bench.attacks.sigma_zero import sigma_zero
from bench.attacks.sweep.restarts import SweepSettings
from bench.attacks.sweep.sweep import NormSweep
from bench.attacks.verification import AttackResults
from bench.core.bounds import OneRadius, Steps
from bench.core.names import unknown_name
from bench.core.threat import NORMS, Norm
from bench.core.toml_files import Section, validate
from bench.leaderboard.metrics import ExampleValues, Metric, MetricKey
from bench.leaderboard.statistics.intervals import median_interval
from bench.protocols.base import EvaluationContext, Protocol, UnitResult, clean_accuracy
from bench.protocols.clean_pass import clean_pass

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor


class Ladder(Section):
    """The largest radius of each norm of a data set; images that withstand it count as infinitely far."""

    largest: OneRadius = Field(min_length=1)


class Parameters(Section):
    steps: Steps
    rungs: int = Field(gt=1, le=1000)
    ratio: float = Field(gt=1, le=10)
    losses: tuple[LossName, ...] = Field(default=("margin",), min_length=1, max_length=100, strict=False)
    targets: dict[Norm, Steps] = Field(default_factory=dict)
    zero_norm_steps: int = Field(ge=0, le=100_000)
    datasets: dict[str, Ladder] = Field(min_length=1)


class MinimumNorm(Protocol):
    """The median of the smallest perturbation, norm by norm, over the examples that are classified right."""

    needs_gradients = True
    search_takes_precision = True

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any], where: str) -> MinimumNorm:
        return cls(validate(Parameters, parameters, where))

    def require_dataset(self, name: str) -> None:
        if name not in self.parameters.datasets:
            raise unknown_name(name, self.parameters.datasets, "data set for this suite")

    def work(self, dataset: str, count: int) -> int:
        return count * (len(self.parameters.datasets[dataset].largest) + bool(self.parameters.zero_norm_steps))

    def evaluate(self, context: EvaluationContext) -> UnitResult:
        import pandas as pd

        images, labels = context.images(), context.labels().to(context.device)
        predictions, findings = clean_pass(
            context.model, context.model_name, images, context.dataset.num_classes, context.batch_size
        )
        results = AttackResults.start(predictions, context.labels())
        distances: dict[str, Tensor] = {}
        largest = self.parameters.datasets[context.dataset.name].largest
        for norm in (norm for norm in NORMS if norm in largest):
            NormSweep(
                context.model, images, labels, context.example_ids.to(context.device), norm,
                [largest[norm] / self.parameters.ratio**rung for rung in range(self.parameters.rungs)],
                self._settings(norm, context.seed), results,
                batch_size=context.batch_size, on_progress=context.on_progress, precision=context.precision,
            ).run()  # fmt: skip
            distances[norm] = results.distances[norm]
        if self.parameters.zero_norm_steps:
            distances["l0"] = self._zero_norm(context, images, labels, results)
        rows = pd.concat(
            [
                pd.DataFrame(
                    {
                        "example_id": context.example_ids.numpy(),
                        "label": context.labels().numpy(),
                        "prediction": predictions.numpy(),
                        "attack": "sigma_zero" if norm == "l0" else "sweep",
                        "norm": norm,
                        "distance": distance.double().numpy(),
                    }
                )
                for norm, distance in distances.items()
            ],
            ignore_index=True,
        )
        return UnitResult(rows, results.counters(), findings)

    def _settings(self, norm: Norm, seed: int) -> SweepSettings:
        parameters = self.parameters
        return SweepSettings(parameters.steps, parameters.losses, 1, seed, parameters.targets.get(norm, 0))

    def _zero_norm(self, context: EvaluationContext, images: Tensor, labels: Tensor, results: AttackResults) -> Tensor:
        """(n,) float: the fewest changed values, judged again by the plain model."""
        fewest = []
        for part in torch.split(torch.arange(len(images), device=images.device), context.batch_size):
            clean, truth = images[part], labels[part]
            found, _ = sigma_zero(context.model, clean, truth, steps=self.parameters.zero_norm_steps)
            found = found.clamp(0.0, 1.0)
            with torch.no_grad():
                fooled = answers(context.model(found)) != truth
            counts = (found != clean).flatten(1).sum(1).double()
            fewest.append(torch.where(fooled, counts, torch.inf).cpu())
            results.gradient_evaluations += len(part) * self.parameters.zero_norm_steps
            context.on_progress(len(part))
        return torch.cat(fewest)

    def example_values(self, dataset: str, records: pd.DataFrame) -> list[ExampleValues]:  # noqa: ARG002
        return [clean_accuracy(records)]

    def further_metrics(self, dataset: str, records: pd.DataFrame) -> list[Metric]:  # noqa: ARG002
        metrics = []
        right = records[records["label"] == records["prediction"]]
        for (attack, norm), group in right.groupby(["attack", "norm"], sort=False, observed=True):
            values = group["distance"].to_numpy(dtype=float)
            key, bounds = MetricKey("median_distance", attack=str(attack), norm=str(norm)), median_interval(values)
            metrics.append(Metric(key, float(_median(values)), *bounds, len(values), "higher", "number"))
        return metrics


def _median(values: Any) -> float:
    """The lower median, which stays finite as long as half of the images have been broken."""
    import numpy as np

    return float(np.quantile(values, 0.5, method="lower"))
