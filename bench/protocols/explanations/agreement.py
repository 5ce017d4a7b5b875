"""attribution_agreement: do attribution methods agree on one model, and does a method's map depend on the weights.

The first is the disagreement problem (Krishna et al. 2022); the second the sanity check by cascading randomisation
(Adebayo et al. 2018): a method whose map of a fully randomised net is still like the model's own is flagged.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from pydantic import Field, model_validator
from torch import Tensor

from bench.attributions.randomise import randomised_from_the_top
from bench.attributions.similarity import Measure, PreparedMaps, similarities
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import Direction, ExampleValues, MetricKey
from bench.protocols.base import clean_accuracy
from bench.protocols.explanations.base import AttributionProtocol, Batch, ComparedMaps, Unit, by_example, groups

ALL = "all"
"""The stage of the sanity check at which every layer is random."""


class Parameters(ComparedMaps):
    randomisation: bool = True
    flag_above: float = Field(default=0.5, gt=0, le=1)
    """A method is flagged if its maps of the randomised net have a mean Spearman correlation above this."""

    @model_validator(mode="after")
    def _fits_together(self) -> Parameters:
        if len(self.attributions) < 2:
            raise ValueError("agreement needs two attributions or more")
        if self.randomisation and "spearman" not in self.measures:
            raise ValueError("the sanity check is judged by spearman; name it among the measures")
        return self


class AttributionAgreement(AttributionProtocol):
    """Pairwise similarity between methods, and of each method's maps before and after the weights are randomised.

    Records hold one row per example, `check`, `attribution` and `other`, with a column per measure: for `agreement`,
    `other` is the second method; for `randomisation`, the layer that was drawn last, or `all` of them.
    """

    parameters_type = Parameters
    parameters: Parameters

    def work(self, dataset: str, count: int) -> int:  # noqa: ARG002
        return count * len(self.parameters.attributions) * (2 if self.parameters.randomisation else 1)

    def rows(self, unit: Unit, batch: Batch) -> Iterator[pd.DataFrame]:
        originals: dict[str, PreparedMaps] = {}
        for method in self.parameters.attributions:
            originals[method.name] = unit.maps(method, batch)
            unit.context.on_progress(len(batch.labels))
        for first, second in itertools.combinations(originals, 2):
            found = similarities(originals[first], originals[second], self.parameters.measures)
            yield batch.frame(_columns("agreement", first, second, found))
        if not self.parameters.randomisation:
            return
        for stage, last, net in randomised_from_the_top(unit.context.model, batch.images[:1], unit.context.seed):
            for method in self.parameters.attributions:
                maps = unit.maps(method, batch, model=net)
                found = similarities(originals[method.name], maps, self.parameters.measures)
                yield batch.frame(_columns("randomisation", method.name, ALL if last else stage, found))
        unit.context.on_progress(len(batch.labels) * len(originals))

    def remarks(self, unit: Unit, records: pd.DataFrame) -> list[Finding]:  # noqa: ARG002
        random = records[(records["check"] == "randomisation") & (records["other"] == ALL)]
        means = {name: float(rows["spearman"].mean()) for (name,), rows in groups(random, ("attribution",))}
        return insensitive(means, self.parameters.flag_above)

    def example_values(self, dataset: str, records: pd.DataFrame) -> list[ExampleValues]:  # noqa: ARG002
        found = [clean_accuracy(records)]
        for (check, first, second), rows in groups(records, ("check", "attribution", "other")):
            direction: Direction = "lower" if check == "randomisation" else "descriptive"
            for measure in self.parameters.measures:
                key = MetricKey(f"{check}/{measure}", f"{first}/{second}")
                found.append(self.compared(measure, key, by_example(rows, measure), direction))
        return found


def insensitive(similarities_to_random: Mapping[str, float], above: float) -> list[Finding]:
    """A warning for each method whose maps hardly change as all weights are drawn anew; mean Spearman by method."""
    advice = "they show the image more than the model; don't read them as an explanation of it"
    evidence = "{} maps of the net with all weights random have a mean Spearman of {:.2f} with the model's own"
    return [
        Finding(f"insensitive_{method}", "warning", evidence.format(method, mean), advice)
        for method, mean in similarities_to_random.items()
        if mean > above
    ]


def _columns(check: str, first: str, second: str, values: Mapping[Measure, Tensor]) -> dict[str, Any]:
    return {"check": check, "attribution": first, "other": second} | {str(name): values[name] for name in values}
