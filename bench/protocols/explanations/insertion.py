"""insertion: does the class's probability rise early as the pixels that a map calls important appear.

Insertion, deletion, and the adversarial insertion game: order from the map of an attacked image, pixels from the clean
one. A random order is the control. The evidence has the areas; `bench.attributions.curves` gives the curves.
Source: LGA, section 4.5; Petsiuk, Das, Saenko 2018.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from bench.attacks.pgd import attacked_model
from bench.attributions.curves import curve_area, insertion_curve, pixel_ranks
from bench.attributions.heat_maps import heat_maps
from bench.attributions.manipulate import ManipulationSettings, heat_maps_and_logits, make_goal, manipulate
from bench.attributions.manipulations import FrameTarget
from bench.attributions.registry import AttributionMethod, MapRequest, attribute, find_method
from bench.attributions.similarity import PreparedMaps
from bench.core.bounds import PixelRadius
from bench.core.keyed_random import keyed_uniform
from bench.core.toml_files import Section
from bench.data.specs import dataset_spec
from bench.leaderboard.metrics import Direction, ExampleValues, MetricKey, Prominence
from bench.protocols.base import EvaluationContext, UnitResult, clean_accuracy
from bench.protocols.explanations.base import (
    AttributionProtocol,
    Attributions,
    Batch,
    MapTally,
    batches,
    by_example,
    frame,
    groups,
    require_unique,
)

if TYPE_CHECKING:
    import pandas as pd

Background = Literal["mean", "black"]
GAMES: dict[str, Direction] = {"insertion": "higher", "deletion": "lower"}
"""Whether a large or a small area is better; of the random order, which is the control, neither is."""
RANDOM = "random_order"
_CHECK_EVERY, _TOP_SHARE = 5, 0.1


class Parameters(Section):
    attributions: Attributions
    steps: int = Field(gt=0, le=1000)
    background: Background = "mean"
    attack: FrameTarget | None = None
    radii: list[PixelRadius] = Field(default_factory=list, max_length=100)

    @model_validator(mode="after")
    def _fits_together(self) -> Parameters:
        require_unique([method.name for method in self.attributions], "attributions")
        require_unique([str(radius) for radius in self.radii], "radii")
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

    @property
    def manipulates(self) -> bool:  # type: ignore[override]
        return self.parameters.attack is not None

    @property
    def needs_second_derivatives(self) -> bool:  # type: ignore[override]
        return self.manipulates

    def work(self, dataset: str, count: int) -> int:  # noqa: ARG002
        return count * len(self.parameters.attributions) * (1 + len(self.parameters.radii))

    def evaluate(self, context: EvaluationContext) -> UnitResult:
        import pandas as pd

        unit, findings = batches(context)
        background = background_of(context, self.parameters.background)
        frames: list[pd.DataFrame] = []
        tally = MapTally()
        counters = {"gradient_evaluations": 0, "claims": 0, "rejected_claims": 0}
        with attacked_model(context.model):
            for batch in unit:
                uniform = keyed_uniform(context.seed, "random_order", batch.example_ids, batch.images.shape[2:])
                frames += self._play(context, batch, background, RANDOM, "", None, uniform)
                for method in self.parameters.attributions:
                    frames += self._of_method(context, batch, background, method, counters, tally)
        findings += tally.findings(context.stop - context.start)
        records = pd.concat(frames, ignore_index=True)
        return UnitResult(records.sort_values("example_id", kind="stable", ignore_index=True), counters, findings)

    def _of_method(
        self,
        context: EvaluationContext,
        batch: Batch,
        background: Tensor,
        method: AttributionMethod,
        counters: dict[str, int],
        tally: MapTally,
    ) -> list[pd.DataFrame]:
        def order(images: Tensor) -> Tensor:
            ids = batch.example_ids
            maps = attribute(context.model, images, batch.labels, method, example_ids=ids, seed=context.seed)
            return tally.see(method, batch, PreparedMaps(heat_maps(maps))).maps

        frames = self._play(context, batch, background, method.name, "", None, order(batch.images))
        context.on_progress(len(batch.labels))
        attack = self.parameters.attack
        if attack is None:
            return frames
        for eps in self.parameters.radii:
            attacked = _attacked(context, batch, method, attack, eps, counters)
            frames += self._play(context, batch, background, method.name, "frame", eps, order(attacked))
            context.on_progress(len(batch.labels))
        return frames

    def _play(
        self,
        context: EvaluationContext,
        batch: Batch,
        background: Tensor,
        order: str,
        attack: str,
        eps: float | None,
        maps: Tensor,
    ) -> list[pd.DataFrame]:
        """Records of both games for one order: one row per example and game."""
        ranks, steps = pixel_ranks(maps), self.parameters.steps
        plain, finite = background.expand_as(batch.images), maps.flatten(1).isfinite().all(1)
        frames = []
        for game in GAMES:
            first, last = (batch.images, plain) if game == "insertion" else (plain, batch.images)
            curve = insertion_curve(context.model, first, batch.labels, ranks, last, steps)
            curve[~finite] = torch.nan
            columns: dict[str, Any] = {
                "attribution": order,
                "attack": attack,
                "norm": "linf" if attack else "",
                "eps": float("nan") if eps is None else eps,
                "game": game,
                "area": curve_area(curve),
            }
            frames.append(frame(batch, columns))
        return frames

    def example_values(self, dataset: str, records: pd.DataFrame) -> list[ExampleValues]:  # noqa: ARG002
        found = [clean_accuracy(records)]
        for (attribution, attack, norm, eps, game), rows in groups(
            records, ("attribution", "attack", "norm", "eps", "game")
        ):
            key = MetricKey(game, attribution, attack, norm, None if eps != eps else eps)
            direction = "descriptive" if attribution == RANDOM else GAMES[game]
            headline: Prominence = "headline" if attribution == self.parameters.attributions[0].name else "usual"
            found.append(ExampleValues(key, by_example(rows, "area"), direction, "number", headline))
        return found


def background_of(context: EvaluationContext, background: Background) -> Tensor:
    """(1, C, 1, 1): black, or the data set's mean colour (of its training pixels where it is a known one)."""
    channels = context.dataset.shape[1]
    if background == "black":
        return torch.zeros(1, channels, 1, 1, device=context.device)
    spec = dataset_spec(context.dataset.name)
    # over the whole split, so that it is the same for every work unit
    mean = context.dataset.channel_means if spec is None else torch.tensor(spec.mean)
    return mean.to(torch.float32).view(1, channels, 1, 1).to(context.device)


def _attacked(
    context: EvaluationContext,
    batch: Batch,
    method: AttributionMethod,
    attack: FrameTarget,
    eps: float,
    counters: dict[str, int],
) -> Tensor:
    """The images under the frame attack on the method's maps, or on the gradient's where those have no derivative."""
    against = method if method.differentiable else find_method("gradient")
    request = MapRequest(batch.images, batch.labels, batch.example_ids, context.seed)
    maps, logits = heat_maps_and_logits(context.model, request, against)
    goal = make_goal(attack, maps.detach(), logits.detach(), maps.detach(), _TOP_SHARE)
    settings = ManipulationSettings(eps, _CHECK_EVERY, _TOP_SHARE, context.seed)
    found = manipulate(context.model, batch.images, batch.labels, batch.example_ids, against, attack, goal, settings)
    counters["gradient_evaluations"] += found.gradient_evaluations
    counters["claims"] += found.claims
    counters["rejected_claims"] += found.rejected
    return found.images
