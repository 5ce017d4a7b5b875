"""What the suites that judge single maps share: controls as further subjects, what maps cost, values by example."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from bench.attributions.heat_maps import heat_maps
from bench.attributions.quality.controls import BLURRED, blurred_maps, controls
from bench.attributions.quality.cost import metered
from bench.attributions.registry import AttributionMethod
from bench.leaderboard.controls import is_control
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import Direction, ExampleValues, MetricKey, Prominence
from bench.leaderboard.metrics import Unit as MetricUnit
from bench.protocols.base import clean_accuracy
from bench.protocols.explanations.base import AttributionProtocol, Batch, Unit, by_example, groups

Declared = dict[str, tuple[Direction, MetricUnit, Prominence]]
"""Metric -> which way it is better, its unit and how prominent it is."""
_COSTS = ("forward_passes", "gradients", "microseconds")
_MADE_OF = {"input_x_gradient": "gradient"}
"""Method -> the one whose map, times the image, is its own."""


class ControlledProtocol(AttributionProtocol):
    """Judges the maps of methods, and those of four controls in the same way."""

    counted = ("gradient_evaluations",)
    declared: ClassVar[Declared] = {}
    """In the order in which people read them; records have a column of each name."""

    def subjects(self) -> list[AttributionMethod]:
        """The suite's methods, and the controls."""
        methods: list[AttributionMethod] = self.parameters.attributions
        return [*methods, *controls(methods[0])]

    def work(self, dataset: str, count: int) -> int:  # noqa: ARG002
        return count * len(self.subjects())

    def all_attributions(
        self, unit: Unit, batch: Batch, *, model: nn.Module | None = None, own: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Signed attributions by every subject in turn, whose cost is counted.

        What is made of another's map is not computed anew.

        Args:
            model: another net than the judged one.
            own: whether these are the unit's examples themselves, so that a map which is zero or not finite is told of.
        """
        net = unit.context.model if model is None else model
        methods, seen = self.subjects(), dict[str, Tensor]()
        for method in methods:
            made: Tensor | None = None
            if method.name == BLURRED and seen:
                made = blurred_maps(seen[methods[0].name])
            elif (source := seen.get(_MADE_OF.get(method.name, ""))) is not None:
                made = batch.images * source
            used = method if made is None else replace(method, function=partial(_given, made))
            with metered(net, unit.context.device) as cost:
                found = batch.attributions(net, used, unit.context.seed)
            for name, amount in {"maps": len(batch.labels), **{name: getattr(cost, name) for name in _COSTS}}.items():
                unit.counters[f"{name}/{method.name}"] = unit.counters.get(f"{name}/{method.name}", 0) + amount
            unit.counters["gradient_evaluations"] += cost.gradients
            if own:
                unit.see(used, batch, unit.prepared(found), clean=True)
            if not seen or method.name in _MADE_OF.values():
                seen[method.name] = found
            yield method.name, found

    def findings(self, counters: dict[str, int]) -> list[Finding]:
        """What a map costs alone: gradients, passes and milliseconds by method."""
        found, costs = [], dict[str, Any]()
        for method in self.parameters.attributions:
            maps = counters.get(f"maps/{method.name}", 0)
            if maps:
                own = np.array([counters[f"{name}/{method.name}"] / maps for name in _COSTS])
                passes, gradients, time = costs[method.name] = own + costs.get(_MADE_OF.get(method.name, ""), 0.0)
                found.append(f"{method.name} {gradients:.3g} gradients, {passes:.3g} passes, {time / 1000:.3g} ms")
        if not found:
            return []
        advice = "passes through parts of the net are not counted; times are of this machine and batch size"
        return [Finding("cost_of_maps", "note", f"a map costs: {'; '.join(found)}", advice)]

    def example_values(self, dataset: str, records: pd.DataFrame) -> list[ExampleValues]:  # noqa: ARG002
        found = [clean_accuracy(records)]
        for (attribution,), rows in groups(records, ("attribution",)):
            measured = [name for name in self.declared if name in rows]
            found += [self.judged(name, attribution, by_example(rows, name)) for name in measured]
        return found

    def judged(self, metric: str, subject: str, values: pd.Series, *, name: str = "") -> ExampleValues:
        """A metric as `declared`, of `name` where it is called otherwise; that of a control judges no model."""
        direction, unit, prominence = self.declared[metric]
        key = MetricKey(name or metric, subject)
        control = is_control(key)
        first = subject.partition("/")[0] == self.parameters.attributions[0].name
        shown: Prominence = prominence if first or prominence == "detail" else "usual"
        return ExampleValues(key, values, "descriptive" if control else direction, unit, prominence=shown)


def _given(maps: Tensor, *_: object, **__: object) -> Tensor:
    return maps


def finite(columns: dict[str, Tensor], maps: Tensor) -> dict[str, Tensor]:
    """The columns, NaN where a map is not finite."""
    fine = heat_maps(maps).flatten(1).isfinite().all(1)
    return {name: torch.where(fine, values.float(), torch.nan) for name, values in columns.items()}
