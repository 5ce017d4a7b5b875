"""What a saliency panel shows of one model: images, their maps, the same images under an attack, and their maps there.

An attack on maps is computed as the protocol attribution_attack does, so that a panel's numbers are that suite's for
the same example, seed, attack and radius. Two draw the rows: saliency.figure a picture, page.saliency a gallery.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.attacks.norms import distance
from bench.attacks.pgd import attacked_model, pgd
from bench.attacks.verification import pull_inside, verify
from bench.attributions.heat_maps import heat_maps
from bench.attributions.manipulate import make_goal, manipulate
from bench.attributions.manipulations import MapAttack
from bench.attributions.registry import AttributionMethod, find_method
from bench.attributions.similarity import Measure, PreparedMaps, similarities
from bench.catalog.models import ModelEntry
from bench.core.devices import exact
from bench.core.errors import BenchError
from bench.core.keyed_random import keyed_uniform
from bench.core.precision import float32_products
from bench.core.threat import Norm
from bench.core.torch_state import random_numbers_of
from bench.data import ImageDataset
from bench.leaderboard.findings import Finding
from bench.protocols.base import EvaluationContext
from bench.protocols.clean_pass import clean_pass
from bench.protocols.explanations.attack import clean_maps
from bench.protocols.explanations.base import Batch
from bench.runs.ready import prepared_net, scaled_net

MEASURES: tuple[Measure, ...] = ("cosine", "top_k")
TOP_SHARE = 0.1
_CHECK_EVERY = 5
_STEP_SHARE = 0.1
_QUANTILE = 0.99


@dataclass(frozen=True, slots=True)
class PredictionAttack:
    """PGD on the margin from one random start: an attack on the prediction, where a `MapAttack` keeps it."""

    kind: ClassVar[str] = "pgd"
    norm: Norm
    steps: int = 40


@dataclass(frozen=True, slots=True)
class PanelSettings:
    """What every row of a panel has in common.

    Attributes:
        methods: whose maps are shown, in order.
        attack: what is done to the prediction, or to the maps of `attacked_method`.
        eps: radius of the ball (L-inf for attacks on maps), pixels of [0, 1].
        seed: keys noise and random starts, together with the example ids.
    """

    methods: Sequence[AttributionMethod]
    attack: MapAttack | PredictionAttack
    eps: float
    seed: int

    @property
    def norm(self) -> Norm:
        return self.attack.norm if isinstance(self.attack, PredictionAttack) else "linf"

    @property
    def attacked_method(self) -> AttributionMethod:
        """The first method whose maps have a derivative; the gradient where none has."""
        return next((method for method in self.methods if method.differentiable), find_method("gradient"))


@dataclass(frozen=True, slots=True)
class Scale:
    """What the colours of maps mean.

    Attributes:
        low, high: the values at the ends; `low` is -`high` for signed maps, 0 for others.
        clipped: whether there are magnitudes beyond the ends, drawn in the colour of the end.
        empty: whether all maps are zero, so that there is nothing to scale.
    """

    low: float
    high: float
    clipped: bool
    empty: bool


def scale_of(maps: Sequence[NDArray[np.float64]], *, signed: bool) -> Scale:
    """One scale for all these maps, full colour at the 99th percentile of their magnitudes together."""
    magnitudes = np.abs(np.stack(maps))
    largest = float(magnitudes.max())
    high = float(np.quantile(magnitudes, _QUANTILE)) or largest or 1.0
    return Scale(-high if signed else 0.0, high, largest > high, largest == 0.0)


@dataclass(frozen=True, slots=True)
class MapPair:
    """A method's map of an image and of the attacked image.

    Attributes:
        before, after: (H, W), channels added up with their signs.
        signed: whether the method can give values below zero.
        similarities: of the heat maps, which are absolute values added up over channels.
        signed_cosine: of the maps as they are, all channels.
    """

    method: str
    signed: bool
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    similarities: dict[Measure, float]
    signed_cosine: float

    @property
    def scale(self) -> Scale:
        return scale_of((self.before, self.after), signed=self.signed)


@dataclass(frozen=True, slots=True)
class PanelRow:
    """One image under one model.

    Attributes:
        truth, before, after: names of the label and of the predictions for the image and the attacked image.
        image, attacked: (C, H, W) in [0, 1]; `attacked` is verified to lie inside the ball and [0, 1]. Under an attack
            on maps it keeps the prediction too, and is the image itself where nothing stronger verified.
        distance: of `attacked` from `image` in the attack's norm, measured in float64.
        kept: whether any perturbed image that an attack on maps looked at kept the prediction; whether an attack on
            the prediction failed to make it wrong.
    """

    model: str
    example_id: int
    truth: str
    before: str
    after: str
    image: NDArray[np.float32]
    attacked: NDArray[np.float32]
    distance: float
    kept: bool
    maps: tuple[MapPair, ...]


def panel_rows(
    entry: ModelEntry,
    dataset: ImageDataset,
    example_ids: Sequence[int],
    settings: PanelSettings,
    *,
    device: torch.device,
) -> tuple[list[PanelRow], list[Finding]]:
    """One row an example, and what the clean pass found odd about the model's outputs.

    Args:
        example_ids: positions in the split, each once.

    Raises:
        BenchError: a model that cannot be judged, or a method that its net does not support.
    """
    model = prepared_net(entry, dataset, device)
    with attacked_model(model), float32_products(), random_numbers_of(device, settings.seed, "saliency"):
        ids = torch.tensor(example_ids)
        pixels, labels = dataset.pixels(ids).to(device), dataset.labels[ids].to(device)
        predictions, findings = clean_pass(model, entry.card.name, pixels, dataset.num_classes, batch_size=len(ids))
        batch = Batch(pixels, labels, ids.to(device), predictions.to(device))
        model = scaled_net(model, dataset, device)
        # every method once before the attack: one that the net does not support is refused before the long part
        clean = [batch.attributions(model, method, settings.seed) for method in settings.methods]
        for method in settings.methods:
            findings += method.findings(model, batch.images[:1])
        context = EvaluationContext(
            model=model, model_name=entry.card.name, dataset=dataset, start=0, stop=len(dataset), seed=settings.seed,
            device=device, batch_size=len(example_ids),
        )  # fmt: skip
        images, kept = _attacked(context, batch, settings)
        attacked = [batch.attributions(model, method, settings.seed, images) for method in settings.methods]
        with torch.no_grad():
            after = model(images).argmax(1)
    pairs = [_pairs(*pair, entry.card.name) for pair in zip(settings.methods, clean, attacked, strict=True)]
    classes = dataset.class_names
    distances = distance(exact(images) - exact(batch.images), settings.norm)
    rows = [
        PanelRow(
            model=entry.card.name,
            example_id=int(batch.example_ids[row]),
            truth=classes[int(batch.labels[row])],
            before=classes[int(batch.predictions[row])],
            after=classes[int(after[row])],
            image=batch.images[row].cpu().numpy(),
            attacked=images[row].cpu().numpy(),
            distance=float(distances[row]),
            kept=bool(kept[row]),
            maps=tuple(of_method[row] for of_method in pairs),
        )
        for row in range(len(after))
    ]
    return rows, findings


def _attacked(context: EvaluationContext, batch: Batch, settings: PanelSettings) -> tuple[Tensor, Tensor]:
    """The attacked images, verified, and (N,) bool as `PanelRow.kept`."""
    attack = settings.attack
    if isinstance(attack, PredictionAttack):
        return _misled(context.model, batch, attack, settings)
    method = settings.attacked_method
    maps, donors, logits = clean_maps(context, batch, method)
    goal = make_goal(attack, maps, logits, donors, top_share=TOP_SHARE)
    request = batch.request(settings.seed)
    found = manipulate(context.model, request, method, attack, goal=goal, eps=settings.eps, check_every=_CHECK_EVERY)
    return found.images, found.kept


def _misled(model: nn.Module, batch: Batch, attack: PredictionAttack, settings: PanelSettings) -> tuple[Tensor, Tensor]:
    start = keyed_uniform(settings.seed, "saliency", batch.example_ids, batch.images.shape[1:])
    found = pgd(
        model, batch.images, batch.labels, norm=attack.norm, eps=settings.eps, steps=attack.steps,
        step_size=_STEP_SHARE * settings.eps, loss="margin", start=start,
    )  # fmt: skip
    radius = batch.images.new_full((len(found),), settings.eps)
    broken, _, _ = verify(model, found, batch.images, batch.labels, eps=radius, norm=attack.norm)
    return pull_inside(found, batch.images, radius, attack.norm), ~broken.to(found.device)


def _pairs(method: AttributionMethod, before: Tensor, after: Tensor, model: str) -> list[MapPair]:
    """One pair an example, from attributions (N, C, H, W)."""
    if not bool(torch.isfinite(before).all() and torch.isfinite(after).all()):
        raise BenchError(f"{method.name} gives NaN or infinite maps on {model}; use another method.")
    source, target = (PreparedMaps(heat_maps(maps), TOP_SHARE) for maps in (before, after))
    found = similarities(source, target, MEASURES)
    cosines = torch.nn.functional.cosine_similarity(before.flatten(1), after.flatten(1))
    shown = [exact(maps).sum(1).cpu().numpy() for maps in (before, after)]
    return [
        MapPair(
            method=method.name,
            signed=method.signed,
            before=shown[0][row],
            after=shown[1][row],
            similarities={name: float(values[row]) for name, values in found.items()},
            signed_cosine=float(cosines[row]),
        )
        for row in range(len(before))
    ]
