"""What is drawn for the suites on single maps, as ours draws it, so that Quantus is given the same."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
import torch
from peers.quantus_suites import alone
from scipy.spatial.distance import cdist
from torch import nn

from bench.attributions.quality.localisation import make_mosaics
from bench.attributions.randomise import randomised_from_the_top
from bench.attributions.registry import attribute
from bench.core.keyed_random import keyed_normal, keyed_uniform
from bench.protocols import EvaluationContext
from bench.protocols.explanations.base import Batch, Unit
from bench.protocols.explanations.faithfulness_parts import _square
from bench.protocols.explanations.insertion import background_of
from bench.protocols.explanations.sanity_checks import other_classes


def nearness(maps: np.ndarray, nearest: int) -> np.ndarray:
    """(N, 1), the distance, as Quantus scales it, that just so many other maps are within."""
    distances = cdist(*[alone(maps).reshape(len(maps), -1)] * 2, "seuclidean")
    ordered = np.sort(distances / distances.max(), axis=1)
    return ordered[:, nearest : nearest + 2].mean(1, keepdims=True)


def prepare(name: str, protocol: Any, context: EvaluationContext, plain: nn.Module) -> dict[str, Any]:
    """Everything that is drawn, as ours draws it."""
    settings, ids, seed = protocol.parameters, context.example_ids, context.seed
    images, labels = context.images(), context.labels()
    batch = Batch(images, labels, ids, plain(images).argmax(1).detach())
    if name == "localisation_quick":
        return {"mosaics": make_mosaics(context.dataset, ids, settings.tiles, seed=seed, device=context.device)}
    if name == "sanity_checks_quick":
        drawn = copy.deepcopy(plain)
        layers = [layer for layer, _, _ in randomised_from_the_top(plain, images[:1], seed)]
        *_, (_, _, last) = randomised_from_the_top(plain, images[:1], seed)
        for layer in layers:
            module, state = drawn.get_submodule(layer), last.get_submodule(layer).state_dict()
            module.reset_parameters = partial(module.load_state_dict, state)
        return {"drawn": drawn, "asked": other_classes(batch, Unit(context, 1.0, {}))}
    if name != "faithfulness_quick":
        return {}
    keys = [torch.full_like(ids, draw) for draw in range(settings.infidelity.draws)]
    inside = torch.stack([_square(batch, settings.infidelity.side, int(key[0]), seed) for key in keys])
    blackened = torch.where(inside, 0.0, images)
    with torch.no_grad():
        clean = plain(images)
        changes = torch.stack([clean - plain(one) for one in blackened]).gather(
            2, labels.expand(len(keys), -1)[..., None]
        )
    uniform = [
        keyed_uniform(seed, "sensitivity", ids, images.shape[1:], extra=key)
        for key in keys[: settings.sensitivity.draws]
    ]
    maps = {method.name: attribute(plain, images, labels, method, example_ids=ids) for method in protocol.subjects()}
    return {
        "contributions": {*settings.multiplied, "control_random", "control_sobel", "control_image"},
        "near": {one: nearness(found.numpy(), settings.sufficiency.nearest) for one, found in maps.items()},
        "blackened": blackened, "inside": inside.float(), "power": changes.square().mean(0).squeeze(1),
        "moved": (images + settings.sensitivity.radius * (2 * torch.stack(uniform) - 1)).clamp(0, 1),
        "noise": settings.road.noise * keyed_normal(seed, "road", ids, images.shape[1:]),
        "ground": background_of(context, settings.background),
        "clean": clean.softmax(1).gather(1, labels[:, None]).squeeze(1).numpy(),
    }  # fmt: skip
