"""attribution_attack: how far an attack can change a model's heat maps while the prediction stays.

SAPS is the similarity of the attacked map to the clean one (higher is more robust), TAPS that to the attack's target
(lower is more robust), with the clean map's own similarity to the target beside it.
Source: LGA, sections 4.4 and 4.7; every perturbed image is verified, and the worst over attacks is taken per example.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from bench.attacks.norms import distance
from bench.attacks.pgd import attacked_model
from bench.attributions.manipulate import (
    Manipulated,
    ManipulationSettings,
    heat_maps_and_logits,
    make_goal,
    manipulate,
)
from bench.attributions.manipulations import AnyMapAttack, Goal, MapAttack
from bench.attributions.registry import AttributionMethod, MapRequest, find_method
from bench.attributions.similarity import DISTANCES, Measure, PreparedMaps, similarities
from bench.core.bounds import PixelRadii, Steps
from bench.core.keyed_random import keyed_uniform
from bench.core.toml_files import Section
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import Direction, ExampleValues, MetricKey
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


_HEADLINES = ("saps", "taps")
_SIMILARITIES: dict[str, Direction] = {"saps": "higher", "taps": "lower", "taps_clean": "descriptive"}
"""Of the attacked map to the clean one and to the target, of the clean one to the target; and which way is better."""


class Parameters(Section):
    radii: PixelRadii
    attacks: list[AnyMapAttack] = Field(min_length=1)
    attributions: Attributions
    measures: list[Measure] = Field(min_length=1)
    top_share: TopShare = 0.1
    check_every: Steps = 5

    @model_validator(mode="after")
    def _names_are_unique(self) -> Parameters:
        require_unique([method.name for method in self.attributions], "attributions")
        require_unique([attack.kind for attack in self.attacks], "attacks")
        require_unique([str(radius) for radius in self.radii], "radii")
        require_unique(self.measures, "measures")
        return self


class AttributionAttack(AttributionProtocol):
    """SAPS and TAPS under every attack, and the worst of them, for each attribution method and radius.

    Records hold one row per example, attribution, attack and radius: `saps_<measure>`, `taps_<measure>` and
    `taps_clean_<measure>` (NaN for attacks without a target), `distance` of the verified image in L-inf, and
    `prediction_kept`, whether any iterate but the clean image kept the prediction. Where none did, or none was
    stronger than the clean image, the clean image stands: distance 0, similarity 1.
    """

    needs_second_derivatives = True
    manipulates = True
    parameters_type = Parameters
    parameters: Parameters

    def work(self, dataset: str, count: int) -> int:  # noqa: ARG002
        settings = self.parameters
        return count * len(settings.radii) * len(settings.attributions) * len(settings.attacks)

    def evaluate(self, context: EvaluationContext) -> UnitResult:
        import pandas as pd

        unit, findings = batches(context)
        frames: list[pd.DataFrame] = []
        tally = _Tally()
        with attacked_model(context.model):
            for batch in unit:
                for method in self.parameters.attributions:
                    frames += self._records(context, batch, method, tally)
        count = context.stop - context.start
        findings += tally.maps.findings(count)
        findings += _remarks(self.parameters, tally, count)
        records = pd.concat(frames, ignore_index=True)
        return UnitResult(
            records.sort_values("example_id", kind="stable", ignore_index=True), dict(tally.counters), findings
        )

    def _records(
        self, context: EvaluationContext, batch: Batch, method: AttributionMethod, tally: _Tally
    ) -> list[pd.DataFrame]:
        settings = self.parameters
        attacked = method if method.differentiable else find_method("gradient")
        clean, donors, logits = clean_maps(context, batch, attacked)
        source = PreparedMaps(clean, settings.top_share)
        if attacked is not method:
            source = heat_maps_of(context.model, batch.images, batch, method, context.seed, settings.top_share)
        tally.maps.see(method, batch, source, clean=True)
        frames = []
        for attack in settings.attacks:
            goal = make_goal(attack, clean, logits, donors, settings.top_share)
            for eps in settings.radii:
                how = ManipulationSettings(eps, settings.check_every, settings.top_share, context.seed)
                found = manipulate(
                    context.model, batch.images, batch.labels, batch.example_ids, attacked, attack, goal, how
                )
                tally.add(found, attack)
                after = heat_maps_of(context.model, found.images, batch, method, context.seed, settings.top_share)
                tally.maps.see(method, batch, after)
                frames.append(frame(batch, self._columns(batch, method, attack, eps, goal, source, after, found)))
                context.on_progress(len(batch.labels))
        return frames

    def _columns(
        self,
        batch: Batch,
        method: AttributionMethod,
        attack: MapAttack,
        eps: float,
        goal: Goal,
        source: PreparedMaps,
        after: PreparedMaps,
        found: Manipulated,
    ) -> dict[str, Any]:
        measures = self.parameters.measures
        columns: dict[str, Any] = {"attribution": method.name, "attack": attack.kind, "norm": "linf", "eps": eps}
        columns["prediction_kept"] = found.kept
        columns["distance"] = distance(found.images.double() - batch.images.double(), "linf")
        columns |= {f"saps_{name}": value for name, value in similarities(source, after, measures).items()}
        nothing = torch.full_like(batch.labels, torch.nan, dtype=torch.float32)
        for prefix, maps in (("taps_clean", source), ("taps", after)):
            if attack.has_target and goal.target is not None:
                target = PreparedMaps(goal.target, self.parameters.top_share)
                columns |= {f"{prefix}_{name}": value for name, value in similarities(maps, target, measures).items()}
            else:
                columns |= {f"{prefix}_{name}": nothing for name in measures}
        return columns

    def example_values(self, dataset: str, records: pd.DataFrame) -> list[ExampleValues]:  # noqa: ARG002
        found = [clean_accuracy(records)]
        for (attribution, eps), of_radius in groups(records, ("attribution", "eps")):
            for (attack,), rows in groups(of_radius, ("attack",)):
                first = self._is_first(attribution, attack)
                where = (attribution, attack, "linf", eps)
                kept = by_example(rows, "prediction_kept")
                found.append(ExampleValues(MetricKey("prediction_kept", *where), kept, "descriptive", "share"))
                for name, direction in _SIMILARITIES.items():
                    found += [
                        ExampleValues(
                            MetricKey(f"{name}/{measure}", *where), by_example(rows, f"{name}_{measure}"),
                            better(direction, measure), "number",
                            prominence_of(measure, self.parameters.measures, headline=first and name in _HEADLINES),
                        )
                        for measure in self.parameters.measures
                    ]  # fmt: skip
            found += self._worst(of_radius, (attribution, "worst", "linf", eps))
        return found

    def _worst(self, rows: pd.DataFrame, where: tuple[str, str, str, float]) -> list[ExampleValues]:
        """Over all attacks, the control included, since what it finds is verified too."""
        found = []
        columns = ["example_id", "label", "prediction", *(f"saps_{measure}" for measure in self.parameters.measures)]
        by_id = rows[columns].groupby("example_id", as_index=False)
        lowest, highest = by_id.min(), by_id.max()
        right = lowest["label"] == lowest["prediction"]
        for measure in self.parameters.measures:
            worst = highest if measure in DISTANCES else lowest
            for name, keep in (("saps", None), ("saps_correct", right)):
                values, key = by_example(worst, f"saps_{measure}", keep), MetricKey(f"{name}/{measure}", *where)
                headline = name == "saps" and self._is_first(where[0])
                prominence = prominence_of(measure, self.parameters.measures, headline=headline)
                found.append(ExampleValues(key, values, better("higher", measure), "number", prominence))
        return found

    def _is_first(self, attribution: str, attack: str | None = None) -> bool:
        settings = self.parameters
        return attribution == settings.attributions[0].name and attack in (None, settings.attacks[0].kind)


class _Tally:
    """What the attacks of a unit counted."""

    def __init__(self) -> None:
        names = ("gradient_evaluations", "claims", "rejected_claims", "bad_gradients")
        self.counters = dict.fromkeys(names, 0)
        self.maps = MapTally()
        self.lost: dict[str, int] = {}
        self.flat: dict[str, int] = {}
        self.tries: dict[str, int] = {}

    def add(self, found: Manipulated, attack: MapAttack) -> None:
        self.counters["gradient_evaluations"] += found.gradient_evaluations
        self.counters["claims"] += found.claims
        self.counters["rejected_claims"] += found.rejected
        self.counters["bad_gradients"] += found.bad_gradients
        for tally, number in (
            (self.lost, int((~found.kept).sum())), (self.flat, found.flat_gradients), (self.tries, len(found.kept)),
        ):  # fmt: skip
            tally[attack.kind] = tally.get(attack.kind, 0) + number


def clean_maps(context: EvaluationContext, batch: Batch, method: AttributionMethod) -> tuple[Tensor, Tensor, Tensor]:
    """Heat maps of the batch and of each example's donor, and the batch's logits; all detached."""
    request = MapRequest(batch.images, batch.labels, batch.example_ids, context.seed)
    maps, logits = heat_maps_and_logits(context.model, request, method)
    others = donor_ids(batch.example_ids, len(context.dataset), context.seed)
    images = context.dataset.pixels(others.cpu()).to(context.device)
    labels = context.dataset.labels[others.cpu()].to(context.device)
    donors, _ = heat_maps_and_logits(context.model, MapRequest(images, labels, others, context.seed), method)
    return maps.detach(), donors.detach(), logits.detach()


def donor_ids(example_ids: Tensor, count: int, seed: int) -> Tensor:
    """Another example of the data set for each example, keyed by its id; itself where there is no other."""
    uniform = keyed_uniform(seed, "target_image", example_ids, (1,)).squeeze(1).double()
    return (example_ids + 1 + (uniform * (count - 1)).long()) % count if count > 1 else example_ids


def _remarks(parameters: Parameters, tally: _Tally, count: int) -> list[Finding]:
    found = [
        Finding(
            f"transferred_{method.name}",
            "note",
            f"{method.name} cannot be differentiated, so its images were made against the gradient",
            "an attack of its own could be stronger",
        )
        for method in parameters.attributions
        if not method.differentiable
    ]
    for kind, number in tally.flat.items():
        if number:
            found.append(
                Finding(
                    f"flat_maps_{kind}",
                    "warning",
                    f"{kind} never saw a gradient other than zero in {number} of {tally.tries[kind]} attacks",
                    "the net's second derivatives vanish; its maps may look more robust than they are",
                )
            )
    if tally.counters["bad_gradients"]:
        found.append(
            Finding(
                "bad_gradients",
                "warning",
                f"{tally.counters['bad_gradients']} gradients on {count} images were NaN or infinite",
                "the attacks are blind there; mend the net's backward pass",
            )
        )
    return found
