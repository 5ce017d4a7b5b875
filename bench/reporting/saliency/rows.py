"""What a saliency panel shows of one model: images, maps, the same images under an attack on a map, and its maps there.

Computed as the protocol attribution_attack does, so that a panel's numbers are that suite's for the same example, seed,
attack and radius.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.attacks.norms import distance
from bench.attacks.pgd import attacked_model
from bench.attributions.heat_maps import heat_maps
from bench.attributions.manipulate import Manipulated, ManipulationSettings, make_goal, manipulate
from bench.attributions.manipulations import MapAttack
from bench.attributions.methods import AttributionMethod, Gradient, attribute
from bench.attributions.similarity import Measure, PreparedMaps, similarities
from bench.catalog.models import ModelEntry
from bench.core.errors import BenchError
from bench.core.precision import float32_products
from bench.core.random_state import random_numbers_of
from bench.data import ImageDataset
from bench.leaderboard.findings import Finding
from bench.protocols.base import EvaluationContext
from bench.protocols.clean_pass import clean_pass
from bench.protocols.explanations.attack import clean_maps
from bench.protocols.explanations.base import Batch, predict
from bench.runs.ready import prepared_net, scaled_net

MEASURES: tuple[Measure, ...] = ("cosine", "top_k")
TOP_SHARE = 0.1
_CHECK_EVERY = 5


@dataclass(frozen=True, slots=True)
class PanelSettings:
    """What every row of a panel has in common.

    Attributes:
        methods: whose maps are shown, in order.
        attack: what is done to the maps of `attacked_method`.
        eps: radius of the L-inf ball, pixels of [0, 1].
        seed: keys noise and random starts, together with the example ids.
    """

    methods: Sequence[AttributionMethod]
    attack: MapAttack
    eps: float
    seed: int

    @property
    def attacked_method(self) -> AttributionMethod:
        """The first method whose maps have a derivative; the gradient where none has."""
        return next((method for method in self.methods if method.differentiable), Gradient())


@dataclass(frozen=True, slots=True)
class MapPair:
    """A method's map of an image and of the attacked image.

    Attributes:
        before, after: (H, W), channels added up with their signs.
        signed: whether the method can give values below zero.
        similarities: of the heat maps, which are absolute values added up over channels.
    """

    method: str
    signed: bool
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    similarities: dict[Measure, float]


@dataclass(frozen=True, slots=True)
class PanelRow:
    """One image under one model.

    Attributes:
        truth, before, after: names of the label and of the predictions for the image and the attacked image.
        image, attacked: (C, H, W) in [0, 1]; `attacked` is verified to lie inside the ball and [0, 1] and to keep the
            prediction, and is the image itself where nothing stronger verified.
        distance: of `attacked` from `image`, L-inf, measured in float64.
        kept: whether any perturbed image that the attack looked at kept the prediction.
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
    entry: ModelEntry, dataset: ImageDataset, example_ids: Sequence[int], settings: PanelSettings, device: torch.device
) -> tuple[list[PanelRow], list[Finding]]:
    """One row an example, and what the clean pass found odd about the model's outputs.

    Args:
        example_ids: positions in the split, each once.

    Raises:
        BenchError: a model that cannot be judged, or a method that its net does not support.
    """
    model = prepared_net(entry, dataset, device)
    with attacked_model(model), float32_products(), random_numbers_of(device, settings.seed, "saliency"):
        batch, findings = _batch(model, entry, dataset, torch.tensor(example_ids), device)
        model = scaled_net(model, dataset, device)
        # every method once before the attack: one that the net does not support is refused before the long part
        clean = [_attributions(model, batch.images, batch, method, settings.seed) for method in settings.methods]
        context = EvaluationContext(
            model, entry.card.name, dataset, 0, len(dataset), settings.seed, device, len(example_ids)
        )
        found = _attacked(context, batch, settings)
        attacked = [_attributions(model, found.images, batch, method, settings.seed) for method in settings.methods]
        after = predict(model, found.images)
    pairs = [_pairs(*pair, entry.card.name) for pair in zip(settings.methods, clean, attacked, strict=True)]
    return _rows(entry.card.name, dataset.class_names, batch, found, after, pairs), findings


def _batch(
    model: nn.Module, entry: ModelEntry, dataset: ImageDataset, ids: Tensor, device: torch.device
) -> tuple[Batch, list[Finding]]:
    images, labels = dataset.pixels(ids).to(device), dataset.labels[ids].to(device)
    predictions, findings = clean_pass(model, entry.card.name, images, dataset.num_classes, len(ids))
    return Batch(images, labels, ids.to(device), predictions.to(device), slice(0, len(ids))), findings


def _attributions(model: nn.Module, images: Tensor, batch: Batch, method: AttributionMethod, seed: int) -> Tensor:
    return attribute(
        model, images, batch.labels, method, example_ids=batch.example_ids, seed=seed, batch_size=len(images)
    )


def _attacked(context: EvaluationContext, batch: Batch, settings: PanelSettings) -> Manipulated:
    method, attack = settings.attacked_method, settings.attack
    maps, donors, logits = clean_maps(context, batch, method)
    goal = make_goal(attack, maps, logits, donors, TOP_SHARE)
    how = ManipulationSettings(settings.eps, _CHECK_EVERY, TOP_SHARE, settings.seed)
    return manipulate(context.model, batch.images, batch.labels, batch.example_ids, method, attack, goal, how)


def _pairs(method: AttributionMethod, before: Tensor, after: Tensor, model: str) -> list[MapPair]:
    """One pair an example, from attributions (N, C, H, W)."""
    if not bool(torch.isfinite(before).all() and torch.isfinite(after).all()):
        raise BenchError(f"{method.name} gives NaN or infinite maps on {model}; use another method.")
    source, target = (PreparedMaps(heat_maps(maps), TOP_SHARE) for maps in (before, after))
    found = similarities(source, target, MEASURES)
    shown = [maps.double().sum(1).cpu().numpy() for maps in (before, after)]
    return [
        MapPair(
            method.name, method.signed, shown[0][row], shown[1][row],
            {name: float(values[row]) for name, values in found.items()},
        )
        for row in range(len(before))
    ]  # fmt: skip


def _rows(
    model: str, classes: Sequence[str], batch: Batch, found: Manipulated, after: Tensor, pairs: list[list[MapPair]]
) -> list[PanelRow]:
    distances = distance(found.images.double() - batch.images.double(), "linf")
    return [
        PanelRow(
            model,
            int(batch.example_ids[row]),
            classes[int(batch.labels[row])],
            classes[int(batch.predictions[row])],
            classes[int(after[row])],
            batch.images[row].cpu().numpy(),
            found.images[row].cpu().numpy(),
            float(distances[row]),
            bool(found.kept[row]),
            tuple(of_method[row] for of_method in pairs),
        )
        for row in range(len(after))
    ]
