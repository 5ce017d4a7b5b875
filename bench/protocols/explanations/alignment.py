"""gradient_alignment: how large the input gradient is, and whose maps it points along.

The cosine to the maps of a reference net is what interpretation regularisation trains (IR, section 1, L_cs), the norm
what it makes small (L_gm); neither is better large or small in itself. The cosine to the image is Etmann et al. 2019's
alignment (arXiv 1905.04172), divided by the image's norm.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor, nn
from torch.nn import functional as F

from bench.attributions.quality.cost import metered
from bench.attributions.registry import find_method
from bench.catalog.models import ModelEntry, load_model
from bench.core.devices import exact
from bench.leaderboard.metrics import ExampleValues, MetricKey, Prominence
from bench.nets.logit_scale import factor_of
from bench.protocols.base import Dependency, clean_accuracy
from bench.protocols.explanations.base import AttributionProtocol, Batch, MapParameters, Unit, by_example, groups
from bench.protocols.reference_models import reference_entry


class Parameters(MapParameters):
    """What a suite pins: the reference net, and which of its maps the gradient is compared with."""

    reference_model: str = "standard"


class GradientAlignment(AttributionProtocol):
    """Of the true class's logit's input gradient g: |g| (pixels in [0, 1]), |cos(g, x)|, cosines to a reference's maps.

    Records hold one row per example and method of the reference: `gradient_norm`, `image_alignment`, and
    `target_alignment`, the signed cosine over all pixels and channels; 0 where either map is all zero.
    """

    parameters_type = Parameters
    parameters: Parameters
    counted = ("gradient_evaluations",)

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters)
        self._loaded: dict[tuple[str, str], nn.Module] = {}

    def dependencies(self, dataset: str, model_name: str, registry: Path | None) -> dict[str, Dependency]:
        own = super().dependencies(dataset, model_name, registry)
        return own | {"reference_model": Dependency(self._entry(dataset, registry).card.weights.sha256)}

    def _entry(self, dataset: str, registry: Path | None) -> ModelEntry:
        return reference_entry(self.parameters.reference_model, dataset, registry)

    def _reference(self, unit: Unit) -> nn.Module:
        context = unit.context
        key = (context.dataset.name, str(context.device))
        if key not in self._loaded:
            self._loaded[key] = load_model(self._entry(context.dataset.name, context.registry), context.device)
        return self._loaded[key]

    def work(self, dataset: str, count: int) -> int:  # noqa: ARG002
        return count * len(self.parameters.attributions)

    def rows(self, unit: Unit, batch: Batch) -> Iterator[pd.DataFrame]:
        reference = self._reference(unit)
        plain = find_method("gradient")
        gradient = plain.maps(unit.context.model, batch.request(unit.context.seed))
        unit.see(plain, batch, unit.prepared(gradient), clean=True)
        unit.counters["gradient_evaluations"] += len(batch.labels)
        own = {
            "gradient_norm": gradient.flatten(1).norm(dim=1) / factor_of(unit.context.model),
            "image_alignment": _cosine(gradient, batch.images).abs(),
        }
        for method in self.parameters.attributions:
            with metered(reference, unit.context.device) as cost:
                maps = batch.attributions(reference, method, unit.context.seed)
            unit.counters["gradient_evaluations"] += cost.gradients
            aligned = _cosine(gradient, maps.expand_as(gradient))
            yield batch.frame({"attribution": method.name, **own, "target_alignment": aligned})
            unit.context.on_progress(len(batch.labels))

    def example_values(self, dataset: str, records: pd.DataFrame) -> Iterator[ExampleValues]:  # noqa: ARG002
        yield clean_accuracy(records)
        for number, ((method,), rows) in enumerate(groups(records, ("attribution",))):
            columns = {"target_alignment": method, **({} if number else {"gradient_norm": "", "image_alignment": ""})}
            for name, subject in columns.items():
                prominence: Prominence = "usual" if number else "headline"
                key, values = MetricKey(name, subject), by_example(rows, name)
                yield ExampleValues(key, values, "descriptive", "number", prominence=prominence)


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    return F.cosine_similarity(exact(first).flatten(1), exact(second).flatten(1), dim=1).float().to(first.device)
