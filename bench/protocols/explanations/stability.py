"""attribution_stability: how alike are the heat maps of an image and of its uniformly perturbed copies.

Source: LGA, section 4.3 (RPS), radii and number of draws from there, without the slips listed in its section 6.6;
the decomposition on the side is that of the bound in section 1.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd
import torch
from torch import Tensor, nn

from bench.attacks.losses import answers
from bench.attributions.quality.cost import metered
from bench.attributions.registry import AttributionMethod, find_method
from bench.attributions.similarity import PreparedMaps, similarities
from bench.core.bounds import PixelRadii, Steps
from bench.core.devices import exact
from bench.core.keyed_random import keyed_uniform
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import Direction, ExampleValues, MetricKey
from bench.nets.logit_scale import factor_of
from bench.protocols.base import clean_accuracy
from bench.protocols.explanations.base import AttributionProtocol, Batch, ComparedMaps, Unit, by_example, groups

DECOMPOSITION: dict[str, Direction] = {
    "gradient_norm": "descriptive",
    "gradient_change": "descriptive",
    "gradient_change_ratio": "lower",
    "gradient_cosine": "higher",
    "hessian_change": "descriptive",
    "hessian_ratio": "lower",
}
"""With h the input gradient, H its derivative and d the perturbation: |h(x+d)|, |h(x+d) - h(x)|, the latter over the
sum |h(x+d)| + |h(x)|, the cosine of both; |H(x) d|, and that over |h(x+d)|. In pixels of [0, 1], mean over draws.
(1 - cosine) / 2 is at most the square of the change ratio."""


class Parameters(ComparedMaps):
    radii: PixelRadii
    draws: Steps
    decomposition: bool = True


class AttributionStability(AttributionProtocol):
    """Mean similarity over keyed uniform draws, for each attribution method and radius.

    Records hold one row per example, attribution and radius: a column per measure and those of DECOMPOSITION, each
    the mean over draws, and `prediction_kept`, the share of draws that keep the prediction. The decomposition is the
    input gradient's, for every attribution. Metrics `stability_correct` are over the examples that are classified
    right and keep their prediction in every draw.
    """

    parameters_type = Parameters
    parameters: Parameters
    counted = ("gradient_evaluations",)

    @property
    def needs_second_derivatives(self) -> bool:  # type: ignore[override]
        return self.parameters.decomposition

    def work(self, dataset: str, count: int) -> int:  # noqa: ARG002
        return count * len(self.parameters.radii) * self.parameters.draws

    def remarks(self, unit: Unit, records: pd.DataFrame) -> list[Finding]:  # noqa: ARG002
        if not self.parameters.decomposition or not bool((records["hessian_change"] == 0).all()):
            return []
        records["hessian_change"] = records["hessian_ratio"] = float("nan")
        evidence = "the Hessian of the logit is zero at every image, as of any ReLU net"
        advice = "hessian_change and hessian_ratio are left out; gradient_change says what happens across the kinks"
        return [Finding("piecewise_linear", "note", evidence, advice)]

    def rows(self, unit: Unit, batch: Batch) -> Iterator[pd.DataFrame]:
        with metered(unit.context.model, unit.context.device) as cost:
            yield from self._rows(unit, batch)
        unit.counters["gradient_evaluations"] += cost.gradients

    def _rows(self, unit: Unit, batch: Batch) -> Iterator[pd.DataFrame]:
        settings = self.parameters
        references = {method.name: _maps(unit, batch, method) for method in settings.attributions}
        hessian = _Hessian(unit.context.model, batch) if settings.decomposition else None
        for eps in settings.radii:
            totals: dict[str, Tensor] = {}
            for draw in range(settings.draws):
                noisy = perturbed(batch, eps, draw, unit.context.seed)
                for name, values in self._draw(unit, batch, noisy, references, hessian=hessian):
                    totals[name] = totals[name] + exact(values) if name in totals else exact(values)
                unit.context.on_progress(len(batch.labels))
            means = {name: (total / settings.draws).float() for name, total in totals.items()}
            shared = {name: means[name] for name in ("prediction_kept", *(DECOMPOSITION if hessian else ()))}
            for method in settings.attributions:
                own: dict[str, Tensor] = {measure: means[f"{method.name}/{measure}"] for measure in settings.measures}
                common = {"attribution": method.name, "attack": "uniform", "norm": "linf", "eps": eps}
                yield batch.frame({**common, **own, **shared})

    def _draw(
        self, unit: Unit, batch: Batch, noisy: Tensor, references: dict[str, PreparedMaps], hessian: _Hessian | None
    ) -> Iterator[tuple[str, Tensor]]:
        """What one perturbed copy of each image says, by name: (N,) each."""
        logits, gradient = _gradient(unit, batch, noisy)
        yield "prediction_kept", (answers(logits) == batch.predictions).float()
        for method in self.parameters.attributions:
            maps = _maps(unit, batch, method, noisy, gradient=gradient)
            for measure, value in similarities(references[method.name], maps, self.parameters.measures).items():
                yield f"{method.name}/{measure}", value
        if hessian is not None:
            yield from hessian.decompose(noisy - batch.images, gradient).items()

    def example_values(self, dataset: str, records: pd.DataFrame) -> Iterator[ExampleValues]:  # noqa: ARG002
        yield clean_accuracy(records)
        first = self.parameters.attributions[0].name
        for (attribution, eps), rows in groups(records, ("attribution", "eps")):
            ball = ("uniform", "linf", eps)
            sure = (rows["label"] == rows["prediction"]) & (rows["prediction_kept"] == 1.0)
            for measure in self.parameters.measures:
                for name, keep in (("stability", None), ("stability_correct", sure)):
                    headline = name == "stability" and attribution == first
                    key, values = MetricKey(f"{name}/{measure}", attribution, *ball), by_example(rows, measure, keep)
                    yield self.compared(measure, key, values, "higher", headline=headline)
            if attribution != first:
                continue
            key, values = MetricKey("prediction_kept", "", *ball), by_example(rows, "prediction_kept")
            yield ExampleValues(key, values, "descriptive", "share")
            for name, direction in DECOMPOSITION.items() if self.parameters.decomposition else ():
                yield ExampleValues(MetricKey(name, "", *ball), by_example(rows, name), direction, "number")


def perturbed(batch: Batch, eps: float, draw: int, seed: int, *, stream: str = "stability") -> Tensor:
    """Images plus uniform noise of radius `eps`, clipped to [0, 1]; the noise is keyed by example and draw alone.

    The radii of one draw share its direction, so that they differ by the radius only.
    """
    ids = batch.example_ids
    uniform = keyed_uniform(seed, stream, ids, batch.images.shape[1:], extra=torch.full_like(ids, draw))
    return (batch.images + eps * (2.0 * uniform - 1.0)).clamp_(0.0, 1.0)


def _gradient(unit: Unit, batch: Batch, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and signed input gradients, detached."""
    request = replace(batch.request(unit.context.seed), images=images)
    gradient, logits = find_method("gradient").maps_and_logits(unit.context.model, request)
    return logits.detach(), gradient


def _maps(
    unit: Unit, batch: Batch, method: AttributionMethod, noisy: Tensor | None = None, gradient: Tensor | None = None
) -> PreparedMaps:
    """Heat maps of the batch or its perturbed copies, whose plain gradient is computed once for all that need it."""
    if method.name == "gradient":
        gradient = _gradient(unit, batch, batch.images)[1] if gradient is None else gradient
        return unit.see(method, batch, unit.prepared(gradient), clean=noisy is None)
    return unit.maps(method, batch, noisy)


class _Hessian:
    """H(x) d by one more backward pass through the gradient's graph, which is built once a batch."""

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        self._model = model
        self._images = batch.images.detach().requires_grad_(True)
        request = replace(batch.request(), images=self._images, keep_graph=True)
        self._gradient = find_method("gradient").maps(model, request)
        self._norm = self._gradient.detach().flatten(1).norm(dim=1)

    def decompose(self, perturbation: Tensor, gradient: Tensor) -> dict[str, Tensor]:
        """The columns of DECOMPOSITION for one draw, (N,) each."""
        norm = gradient.flatten(1).norm(dim=1)
        change = (gradient - self._gradient.detach()).flatten(1).norm(dim=1)
        product = self._product(perturbation).flatten(1).norm(dim=1)
        unit = factor_of(self._model)
        both = (gradient * self._gradient.detach()).flatten(1).sum(1)
        tiny = 1e-30
        return {
            "gradient_norm": norm / unit,
            "gradient_change": change / unit,
            "gradient_change_ratio": change / (norm + self._norm).clamp_min(tiny),
            "gradient_cosine": both / (norm * self._norm).clamp_min(tiny),
            "hessian_change": product / unit,
            "hessian_ratio": product / norm.clamp_min(tiny),
        }

    def _product(self, direction: Tensor) -> Tensor:
        if not self._gradient.requires_grad:  # a net that is linear has no graph here
            return torch.zeros_like(direction)
        (product,) = torch.autograd.grad(self._gradient, self._images, direction, retain_graph=True, allow_unused=True)
        return torch.zeros_like(direction) if product is None else product
