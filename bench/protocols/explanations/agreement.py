"""attribution_agreement: do attribution methods agree on one model, and does a method's map depend on the weights.

The first is the disagreement problem (Krishna et al. 2022); the second the sanity check by cascading randomisation
(Adebayo et al. 2018): a method whose map of a fully randomised net is still like the model's own is flagged.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator
from torch import Tensor

from bench.attacks.pgd import attacked_model
from bench.attributions.randomise import randomised_from_the_top
from bench.attributions.similarity import Measure, PreparedMaps, similarities
from bench.core.toml_files import Section
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import ExampleValues, MetricKey
from bench.protocols.base import EvaluationContext, UnitResult, clean_accuracy
from bench.protocols.explanations.base import (
    AttributionProtocol,
    Attributions,
    Batch,
    MapTally,
    TopShare,
    batches,
    better,
    by_example,
    frame,
    groups,
    heat_maps_of,
    prominence_of,
    require_unique,
)

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"
"""The stage of the sanity check at which every layer is random."""


class Parameters(Section):
    attributions: Attributions
    measures: list[Measure] = Field(min_length=1)
    top_share: TopShare = 0.1
    randomisation: bool = True
    flag_above: float = Field(default=0.5, gt=0, le=1)
    """A method is flagged if its maps of the randomised net have a mean Spearman correlation above this."""

    @model_validator(mode="after")
    def _fits_together(self) -> Parameters:
        require_unique([method.name for method in self.attributions], "attributions")
        require_unique(self.measures, "measures")
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

    def evaluate(self, context: EvaluationContext) -> UnitResult:
        import pandas as pd

        unit, findings = batches(context)
        frames: list[pd.DataFrame] = []
        tally = MapTally()
        with attacked_model(context.model):
            for batch in unit:
                originals = self._originals(context, batch, tally)
                frames += self._agreement(batch, originals)
                if self.parameters.randomisation:
                    frames += self._randomisation(context, batch, originals, tally)
                    context.on_progress(len(batch.labels) * len(originals))
        findings += tally.findings(context.stop - context.start)
        records = pd.concat(frames, ignore_index=True)
        findings += self._flags(records)
        records = records.sort_values("example_id", kind="stable", ignore_index=True)
        return UnitResult(records, {}, findings)

    def _originals(self, context: EvaluationContext, batch: Batch, tally: MapTally) -> dict[str, PreparedMaps]:
        maps: dict[str, PreparedMaps] = {}
        for method in self.parameters.attributions:
            found = heat_maps_of(context.model, batch.images, batch, method, context.seed, self.parameters.top_share)
            maps[method.name] = tally.see(method, batch, found, clean=True)
            context.on_progress(len(batch.labels))
        return maps

    def _agreement(self, batch: Batch, maps: dict[str, PreparedMaps]) -> list[pd.DataFrame]:
        return [
            frame(batch, _columns("agreement", first, second, similarities(maps[first], maps[second], self._measures)))
            for first, second in itertools.combinations(maps, 2)
        ]

    def _randomisation(
        self, context: EvaluationContext, batch: Batch, originals: dict[str, PreparedMaps], tally: MapTally
    ) -> list[pd.DataFrame]:
        """One row per example, method and stage; a stage is named by the layer that was drawn last."""
        frames: list[pd.DataFrame] = []
        for stage, last, net in randomised_from_the_top(context.model, batch.images[:1], context.seed):
            for method in self.parameters.attributions:
                after = heat_maps_of(net, batch.images, batch, method, context.seed, self.parameters.top_share)
                found = similarities(originals[method.name], tally.see(method, batch, after), self._measures)
                frames.append(frame(batch, _columns("randomisation", method.name, ALL if last else stage, found)))
        return frames

    @property
    def _measures(self) -> list[Measure]:
        return self.parameters.measures

    def _flags(self, records: pd.DataFrame) -> list[Finding]:
        found = []
        random = records[(records["check"] == "randomisation") & (records["other"] == ALL)]
        for (method,), rows in groups(random, ("attribution",)):
            mean = float(rows["spearman"].mean())
            if mean > self.parameters.flag_above:
                found.append(
                    Finding(
                        f"insensitive_{method}",
                        "warning",
                        f"{method} maps of the net with all weights random have a mean Spearman of {mean:.2f} "
                        "with the model's own",
                        "they show the image more than the model; don't read them as an explanation of it",
                    )
                )
        return found

    def example_values(self, dataset: str, records: pd.DataFrame) -> list[ExampleValues]:  # noqa: ARG002
        found = [clean_accuracy(records)]
        for (check, first, second), rows in groups(records, ("check", "attribution", "other")):
            for measure in self._measures:
                prominence = prominence_of(measure, self._measures)
                direction = better("lower", measure) if check == "randomisation" else "descriptive"
                key = MetricKey(f"{check}/{measure}", f"{first}/{second}")
                found.append(ExampleValues(key, by_example(rows, measure), direction, "number", prominence))
        return found


def _columns(check: str, first: str, second: str, values: Mapping[Measure, Tensor]) -> dict[str, Any]:
    return {"check": check, "attribution": first, "other": second} | {str(name): values[name] for name in values}
