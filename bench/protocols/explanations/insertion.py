"""insertion: does the class's probability rise early as the pixels that a map calls important appear.

Insertion, deletion, and the adversarial insertion game: order from the map of an attacked image, pixels from the clean
one. A random order is the control. The evidence has the areas; `bench.attributions.curves` gives the curves.
Source: LGA, section 4.5; Petsiuk, Das, Saenko 2018.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pandas as pd
import torch
from pydantic import Field, model_validator
from torch import Tensor

from bench.attributions.curves import curve_area, insertion_curve
from bench.attributions.manipulate import heat_maps_and_logits, make_goal, manipulate
from bench.attributions.manipulations import FrameTarget
from bench.attributions.pixel_scores import pixel_ranks
from bench.attributions.registry import AttributionMethod, find_method
from bench.core.bounds import PixelRadius
from bench.core.keyed_random import keyed_uniform
from bench.data.specs import DATASETS
from bench.leaderboard.metrics import Direction, ExampleValues, MetricKey, Prominence
from bench.protocols.base import EvaluationContext, clean_accuracy
from bench.protocols.explanations.base import AttributionProtocol, Batch, MapParameters, Unit, by_example, groups

Background = Literal["mean", "black"]
GAMES: dict[str, Direction] = {"insertion": "higher", "deletion": "lower"}
"""Whether a large or a small area is better; of the random order, which is the control, neither is."""
RANDOM = "random_order"
_CHECK_EVERY, _TOP_SHARE = 5, 0.1


class Parameters(MapParameters):
    steps: int = Field(gt=0, le=1000)
    background: Background = "mean"
    attack: FrameTarget | None = None
    radii: list[PixelRadius] = Field(default_factory=list, max_length=100)

    @model_validator(mode="after")
    def _fits_together(self) -> Parameters:
        if bool(self.radii) != (self.attack is not None):
            raise ValueError("the adversarial game needs both an attack and radii; give both or neither")
        return self


class Insertion(AttributionProtocol):
    """Areas under insertion and deletion curves, for each attribution method, clean and attacked order.

    Records hold one row per example, order and game: `attribution` names what ordered the pixels (`random_order` is
    the control), `attack` and `eps` whose map it was, `area` the area under the curve of the true class's probability
    against the share of pixels replaced.
    """

    parameters_type = Parameters
    parameters: Parameters
    counted = ("gradient_evaluations", "claims", "rejected_claims")

    @property
    def manipulates(self) -> bool:  # type: ignore[override]
        return self.parameters.attack is not None

    @property
    def needs_second_derivatives(self) -> bool:  # type: ignore[override]
        return self.manipulates

    def work(self, dataset: str, count: int) -> int:  # noqa: ARG002
        return count * len(self.parameters.attributions) * (1 + len(self.parameters.radii))

    def rows(self, unit: Unit, batch: Batch) -> Iterator[pd.DataFrame]:
        uniform = keyed_uniform(unit.context.seed, "random_order", batch.example_ids, batch.images.shape[2:])
        yield from self._play(unit, batch, RANDOM, None, maps=uniform)
        for method in self.parameters.attributions:
            yield from self._play(unit, batch, method.name, None, maps=self._order(unit, batch, method, batch.images))
            unit.context.on_progress(len(batch.labels))
            for eps in self.parameters.radii:
                attacked = self._attacked(unit, batch, method, eps)
                yield from self._play(unit, batch, method.name, eps, maps=self._order(unit, batch, method, attacked))
                unit.context.on_progress(len(batch.labels))

    def _order(self, unit: Unit, batch: Batch, method: AttributionMethod, images: Tensor) -> Tensor:
        maps = batch.attributions(unit.context.model, method, unit.context.seed, images)
        return unit.see(method, batch, unit.prepared(maps)).maps

    def _play(self, unit: Unit, batch: Batch, order: str, eps: float | None, maps: Tensor) -> Iterator[pd.DataFrame]:
        """Records of both games for one order, that of an attacked map where there is a radius."""
        ranks, steps = pixel_ranks(maps, batch.example_ids), self.parameters.steps
        background = background_of(unit.context, self.parameters.background)
        plain, finite = background.expand_as(batch.images), maps.flatten(1).isfinite().all(1)
        ball = ("", "", float("nan")) if eps is None else ("frame", "linf", eps)
        for game in GAMES:
            first, last = (batch.images, plain) if game == "insertion" else (plain, batch.images)
            curve = insertion_curve(unit.context.model, first, batch.labels, ranks, background=last, steps=steps)
            curve[~finite] = torch.nan
            where = dict(zip(("attribution", "attack", "norm", "eps", "game"), (order, *ball, game), strict=True))
            yield batch.frame({**where, "area": curve_area(curve)})

    def _attacked(self, unit: Unit, batch: Batch, method: AttributionMethod, eps: float) -> Tensor:
        """The images under the frame attack on the method's maps, or the gradient's where those have no derivative."""
        attack, context = self.parameters.attack, unit.context
        assert attack is not None  # noqa: S101  (radii come with one)
        against = method if method.differentiable else find_method("gradient")
        request = batch.request(context.seed)
        maps, logits = heat_maps_and_logits(context.model, request, against)
        goal = make_goal(attack, maps.detach(), logits.detach(), maps.detach(), top_share=_TOP_SHARE)
        found = manipulate(context.model, request, against, attack, goal=goal, eps=eps, check_every=_CHECK_EVERY)
        unit.count(found, attack.kind)
        return found.images

    def example_values(self, dataset: str, records: pd.DataFrame) -> Iterator[ExampleValues]:  # noqa: ARG002
        yield clean_accuracy(records)
        for (attribution, attack, norm, eps, game), rows in groups(
            records, ("attribution", "attack", "norm", "eps", "game")
        ):
            key = MetricKey(game, attribution, attack, norm, eps=None if eps != eps else eps)
            direction = "descriptive" if attribution == RANDOM else GAMES[game]
            headline: Prominence = "headline" if attribution == self.parameters.attributions[0].name else "usual"
            yield ExampleValues(key, by_example(rows, "area"), direction, "number", prominence=headline)


def background_of(context: EvaluationContext, background: Background) -> Tensor:
    """(1, C, 1, 1): black, or the data set's mean colour (of its training pixels where it is a known one)."""
    channels = context.dataset.shape[1]
    if background == "black":
        return torch.zeros(1, channels, 1, 1, device=context.device)
    spec = DATASETS.get(context.dataset.name)
    # over the whole split, so that it is the same for every work unit
    mean = context.dataset.channel_means if spec is None else torch.tensor(spec.mean)
    return mean.to(torch.float32).view(1, channels, 1, 1).to(context.device)
