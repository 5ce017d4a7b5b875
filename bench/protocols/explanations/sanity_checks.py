"""sanity_checks: does a map change when the net, or the question, does.

Cascading randomisation of the weights (Adebayo et al. 2018), efficient MPRT (Hedström et al. 2023: how much more
complex the map of the fully randomised net is) and random logit (Sixt, Granz, Landgraf 2020: the map of another class).
A method that passes can still be wrong; one that fails shows the image more than the net.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import pandas as pd
from pydantic import Field, model_validator
from torch import Tensor

from bench.attributions.quality.complexity import histogram_entropy
from bench.attributions.randomise import randomised_from_the_top
from bench.attributions.similarity import PreparedMaps, similarities
from bench.core.keyed_random import keyed_uniform
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import ExampleValues
from bench.protocols.base import clean_accuracy
from bench.protocols.explanations.agreement import ALL, insensitive
from bench.protocols.explanations.base import Batch, ComparedMaps, Unit, by_example, groups
from bench.protocols.explanations.controlled import ControlledProtocol, Declared, finite


class Parameters(ComparedMaps):
    bins: int = Field(default=100, ge=2, le=100_000)
    """Of the histogram whose entropy is the complexity in efficient MPRT."""
    flag_above: float = Field(default=0.5, gt=0, le=1)
    """As in attribution_agreement."""

    @model_validator(mode="after")
    def _is_judged(self) -> Parameters:
        if "spearman" not in self.measures:
            raise ValueError("the sanity check is judged by spearman; name it among the measures")
        return self


class SanityChecks(ControlledProtocol):
    """Cascade, efficient MPRT and random logit, for each method and four controls.

    Records hold one row per example, `check`, `attribution` and `stage`. For `cascade` and `random_logit` there is a
    column per measure; a stage of the cascade is the layer that was drawn last, or `all`. For `efficient_mprt`,
    `complexity_rise` is (H' - H) / H, H the entropy of the map's histogram, H' that of the randomised net's map.
    """

    parameters_type = Parameters
    parameters: Parameters
    declared: ClassVar[Declared] = {
        "cascade": ("lower", "number", "headline"),
        "efficient_mprt": ("higher", "number", "headline"),
        "random_logit": ("lower", "number", "headline"),
    }

    def work(self, dataset: str, count: int) -> int:  # noqa: ARG002
        return 3 * count

    def rows(self, unit: Unit, batch: Batch) -> Iterator[pd.DataFrame]:
        maps = dict(self.all_attributions(unit, batch))
        prepared = {name: unit.prepared(found) for name, found in maps.items()}
        unit.context.on_progress(len(batch.labels))
        yield from self._cascade(unit, batch, maps, prepared)
        unit.context.on_progress(len(batch.labels))
        asked = replace(batch, labels=other_classes(batch, unit))
        for name, found in self.all_attributions(unit, asked, own=False):
            yield self._similar("random_logit", "", name, batch, of=(prepared[name], unit.prepared(found)))
        unit.context.on_progress(len(batch.labels))

    def _cascade(
        self, unit: Unit, batch: Batch, maps: dict[str, Tensor], prepared: dict[str, PreparedMaps]
    ) -> Iterator[pd.DataFrame]:
        bins = self.parameters.bins
        for layer, last, net in randomised_from_the_top(unit.context.model, batch.images[:1], unit.context.seed):
            for name, found in self.all_attributions(unit, batch, model=net, own=False):
                of = (prepared[name], unit.prepared(found))
                yield self._similar("cascade", ALL if last else layer, name, batch, of=of)
                if last:
                    before, after = (histogram_entropy(one, bins) for one in (maps[name], found))
                    rise = finite({"complexity_rise": (after - before) / before}, maps[name])
                    where = {"check": "efficient_mprt", "attribution": name, "stage": ""}
                    yield batch.frame({**where, **finite(rise, found)})

    def _similar(
        self, check: str, stage: str, attribution: str, batch: Batch, *, of: tuple[PreparedMaps, PreparedMaps]
    ) -> pd.DataFrame:
        where = {"check": check, "attribution": attribution, "stage": stage}
        found = similarities(*of, self.parameters.measures)
        return batch.frame({**where, **{str(measure): values for measure, values in found.items()}})

    def remarks(self, unit: Unit, records: pd.DataFrame) -> list[Finding]:  # noqa: ARG002
        last = records[(records["check"] == "cascade") & (records["stage"] == ALL)]
        own = [method.name for method in self.parameters.attributions]
        means = {
            name: float(rows["spearman"].mean()) for (name,), rows in groups(last, ("attribution",)) if name in own
        }
        return insensitive(means, self.parameters.flag_above)

    def example_values(self, dataset: str, records: pd.DataFrame) -> list[ExampleValues]:  # noqa: ARG002
        found = [clean_accuracy(records)]
        for (check, attribution, stage), rows in groups(records, ("check", "attribution", "stage")):
            subject = f"{attribution}/{stage}" if stage else attribution
            measures = ["complexity_rise"] if check == "efficient_mprt" else self.parameters.measures
            for measure in measures:
                name = check if check == "efficient_mprt" else f"{check}/{measure}"
                found.append(self.judged(check, subject, by_example(rows, measure), name=name))
        return found


def other_classes(batch: Batch, unit: Unit) -> Tensor:
    """(N,) for each example a class that is not its own, keyed by it."""
    count = unit.context.dataset.num_classes
    drawn = keyed_uniform(unit.context.seed, "random_logit", batch.example_ids, (1,)).squeeze(1)
    shift = 1 + (drawn * (count - 1)).long().clamp_(0, count - 2)
    return (batch.labels + shift) % count
