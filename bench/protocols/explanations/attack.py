"""attribution_attack: how far an attack can change a model's heat maps while the prediction stays.

SAPS is the similarity of the attacked map to the clean one (higher is more robust), TAPS that to the attack's target
(lower is more robust), with the clean map's own similarity to the target beside it.
Source: LGA, sections 4.4 and 4.7; every perturbed image is verified, and the worst over attacks is taken per example.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import torch
from pydantic import Field
from torch import Tensor

from bench.attacks.norms import distance
from bench.attributions.manipulate import heat_maps_and_logits, make_goal, manipulate
from bench.attributions.manipulations import AnyMapAttack, Goal
from bench.attributions.registry import AttributionMethod, MapRequest, find_method
from bench.attributions.similarity import DISTANCES, PreparedMaps, similarities
from bench.core.bounds import PixelRadii, Steps
from bench.core.devices import exact
from bench.core.keyed_random import keyed_uniform
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import Direction, ExampleValues, MetricKey
from bench.protocols.base import EvaluationContext, clean_accuracy
from bench.protocols.explanations.base import AttributionProtocol, Batch, ComparedMaps, Unit, by_example, groups

_HEADLINES = ("saps", "taps")
_SIMILARITIES: dict[str, Direction] = {"saps": "higher", "taps": "lower", "taps_clean": "descriptive"}
"""Of the attacked map to the clean one and to the target, of the clean one to the target; and which way is better."""


class Parameters(ComparedMaps):
    radii: PixelRadii
    attacks: list[AnyMapAttack] = Field(min_length=1)
    check_every: Steps = 5


class AttributionAttack(AttributionProtocol):
    """SAPS and TAPS under every attack, and the worst of them, for each attribution method and radius.

    Records hold one row per example, attribution, attack and radius: `saps_<measure>`, `taps_<measure>` and
    `taps_clean_<measure>` (NaN for attacks without a target), `distance` of the verified image in L-inf, and
    `prediction_kept`, whether any iterate but the clean image kept the prediction. Where none did, or none was
    stronger than the clean image, the clean image stands: distance 0, similarity 1.
    """

    needs_second_derivatives = True
    manipulates = True
    counted = ("gradient_evaluations", "claims", "rejected_claims", "bad_gradients")
    parameters_type = Parameters
    parameters: Parameters

    def work(self, dataset: str, count: int) -> int:  # noqa: ARG002
        settings = self.parameters
        return count * len(settings.radii) * len(settings.attributions) * len(settings.attacks)

    def rows(self, unit: Unit, batch: Batch) -> Iterator[pd.DataFrame]:
        for method in self.parameters.attributions:
            yield from self._rows_of(method, unit, batch)

    def _rows_of(self, method: AttributionMethod, unit: Unit, batch: Batch) -> Iterator[pd.DataFrame]:
        settings, context = self.parameters, unit.context
        attacked = method if method.differentiable else find_method("gradient")
        clean, donors, logits = clean_maps(context, batch, attacked)
        if attacked is method:
            source = unit.see(method, batch, PreparedMaps(clean, settings.top_share), clean=True)
        else:
            source = unit.maps(method, batch)
        for attack in settings.attacks:
            goal = make_goal(attack, clean, logits, donors, top_share=settings.top_share)
            for eps in settings.radii:
                found = manipulate(
                    context.model, batch.request(context.seed), attacked, attack, goal=goal,
                    eps=eps, check_every=settings.check_every,
                )  # fmt: skip
                unit.count(found, attack.kind)
                where = {"attribution": method.name, "attack": attack.kind, "norm": "linf", "eps": eps}
                moved = distance(exact(found.images) - exact(batch.images), "linf")
                alike = self._alike(goal, source, unit.maps(method, batch, found.images))
                yield batch.frame({**where, "prediction_kept": found.kept, "distance": moved, **alike})
                context.on_progress(len(batch.labels))

    def _alike(self, goal: Goal, source: PreparedMaps, after: PreparedMaps) -> dict[str, Tensor]:
        """The columns of similarities."""
        measures = self.parameters.measures
        columns = {f"saps_{name}": value for name, value in similarities(source, after, measures).items()}
        nothing = source.maps.new_full((len(source.maps),), torch.nan)
        for prefix, maps in (("taps_clean", source), ("taps", after)):
            if goal.target is not None:
                target = PreparedMaps(goal.target, self.parameters.top_share)
                columns |= {f"{prefix}_{name}": value for name, value in similarities(maps, target, measures).items()}
            else:
                columns |= {f"{prefix}_{name}": nothing for name in measures}
        return columns

    def remarks(self, unit: Unit, records: pd.DataFrame) -> list[Finding]:  # noqa: ARG002
        parameters, count = self.parameters, unit.context.stop - unit.context.start
        tries = count * len(parameters.attributions) * len(parameters.radii)
        found = []
        for name in (method.name for method in parameters.attributions if not method.differentiable):
            evidence = f"{name} cannot be differentiated, so its images were made against the gradient"
            found.append(Finding(f"transferred_{name}", "note", evidence, "an attack of its own could be stronger"))
        for kind, number in unit.flat.items():
            if number:
                evidence = f"{kind} never saw a gradient other than zero in {number} of {tries} attacks"
                advice = "the net's second derivatives vanish; its maps may look more robust than they are"
                found.append(Finding(f"flat_maps_{kind}", "warning", evidence, advice))
        if bad := unit.counters["bad_gradients"]:
            evidence = f"{bad} gradients on {count} images were NaN or infinite"
            advice = "the attacks are blind there; mend the net's backward pass"
            found.append(Finding("bad_gradients", "warning", evidence, advice))
        return found

    def example_values(self, dataset: str, records: pd.DataFrame) -> Iterator[ExampleValues]:  # noqa: ARG002
        yield clean_accuracy(records)
        for (attribution, eps), of_radius in groups(records, ("attribution", "eps")):
            for (attack,), rows in groups(of_radius, ("attack",)):
                first = self._is_first(attribution, attack)
                where = (attribution, attack, "linf", eps)
                kept = by_example(rows, "prediction_kept")
                yield ExampleValues(MetricKey("prediction_kept", *where), kept, "descriptive", "share")
                for name, direction in _SIMILARITIES.items():
                    for measure in self.parameters.measures:
                        key, values = MetricKey(f"{name}/{measure}", *where), by_example(rows, f"{name}_{measure}")
                        yield self.compared(measure, key, values, direction, headline=first and name in _HEADLINES)
            yield from self._worst(of_radius, (attribution, "worst", "linf", eps))

    def _worst(self, rows: pd.DataFrame, where: tuple[str, str, str, float]) -> list[ExampleValues]:
        """Over all attacks, the control included, since what it finds is verified too; NaN where one of them is."""
        found = []
        columns = ["example_id", "label", "prediction", *(f"saps_{measure}" for measure in self.parameters.measures)]
        by_id = rows[columns].groupby("example_id", as_index=False)
        lowest, highest = by_id.min(), by_id.max()
        right = lowest["label"] == lowest["prediction"]
        for measure in self.parameters.measures:
            column, worst = f"saps_{measure}", highest if measure in DISTANCES else lowest
            whole = ~worst["example_id"].isin(rows.loc[rows[column].isna(), "example_id"])
            for name, keep in (("saps", whole), ("saps_correct", right & whole)):
                values, key = by_example(worst, column, keep), MetricKey(f"{name}/{measure}", *where)
                headline = name == "saps" and self._is_first(where[0])
                found.append(self.compared(measure, key, values, "higher", headline=headline))
        return found

    def _is_first(self, attribution: str, attack: str | None = None) -> bool:
        settings = self.parameters
        return attribution == settings.attributions[0].name and attack in (None, settings.attacks[0].kind)


def clean_maps(context: EvaluationContext, batch: Batch, method: AttributionMethod) -> tuple[Tensor, Tensor, Tensor]:
    """Heat maps of the batch and of each example's donor, and the batch's logits; all detached."""
    maps, logits = heat_maps_and_logits(context.model, batch.request(context.seed), method)
    others = donor_ids(batch.example_ids, len(context.dataset), context.seed)
    images = context.dataset.pixels(others.cpu()).to(context.device)
    labels = context.dataset.labels[others.cpu()].to(context.device)
    donors, _ = heat_maps_and_logits(context.model, MapRequest(images, labels, others, context.seed), method)
    return maps.detach(), donors.detach(), logits.detach()


def donor_ids(example_ids: Tensor, count: int, seed: int) -> Tensor:
    """Another example of the data set for each example, keyed by its id; itself where there is no other."""
    uniform = exact(keyed_uniform(seed, "target_image", example_ids, (1,)).squeeze(1))
    steps = (uniform * (count - 1)).long().to(example_ids.device)
    return (example_ids + 1 + steps) % count if count > 1 else example_ids
