"""The metrics of the suite `faithfulness`, each for a batch and all subjects at once, and what a suite says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from bench.attacks.losses import answers, picked
from bench.attributions.curves import curve_area, insertion_curve
from bench.attributions.heat_maps import heat_maps
from bench.attributions.pixel_scores import pixel_ranks
from bench.attributions.quality import faithfulness as quality
from bench.core.bounds import Count, PixelRadius, Steps
from bench.core.keyed_random import keyed_normal, keyed_uniform
from bench.core.toml_files import Section
from bench.leaderboard.controls import CONTROL
from bench.nets.logit_scale import factor_of
from bench.protocols.explanations.base import Batch, Unit
from bench.protocols.explanations.controlled import ControlledProtocol
from bench.protocols.explanations.insertion import Background, background_of
from bench.protocols.explanations.stability import perturbed

Columns = dict[str, dict[str, Tensor]]
"""Subject -> name of a column -> (N,)."""
Share = Annotated[float, Field(gt=0, lt=1)]
Shares = Annotated[list[Share], Field(min_length=1, max_length=100)]


class InfidelityParameters(Section):
    draws: Steps
    side: Annotated[float, Field(gt=0, le=1)]
    """Of the squares that are blackened, as a share of the image's shorter side."""


class SensitivityParameters(Section):
    draws: Steps
    radius: PixelRadius


class RoadParameters(Section):
    shares: Shares
    noise: Annotated[float, Field(ge=0, le=1)] = 0.01


class SufficiencyParameters(Section):
    references: Count
    """How many of the data set's first images."""
    nearest: Count
    """How many of them, those with the nearest maps, count as similar."""


class InsertionParameters(Section):
    steps: Annotated[int, Field(gt=0, le=1000)]


def infidelities(
    unit: Unit, batch: Batch, maps: dict[str, Tensor], settings: InfidelityParameters, *, multiplied: Sequence[str]
) -> Columns:
    """Infidelity under black squares at places keyed by example and draw.

    A map foretells the sum over the square of (pixel x map), or of the map alone where that is `multiplied` by the
    input already, or a control; only a method's own scale has a `raw` figure. `control_blurred` is as the first method.
    """
    first = next(iter(maps))
    whole = {name for name in maps if name.startswith(CONTROL) and not name.endswith("blurred")} | set(multiplied)
    whole |= {f"{CONTROL}blurred"} if first in whole else set()
    contributions = {name: found if name in whole else found * batch.images for name, found in maps.items()}
    summed = {name: found.sum(1, keepdim=True) for name, found in contributions.items()}
    foretold: dict[str, list[Tensor]] = {name: [] for name in maps}
    changes = []
    with torch.no_grad():
        clean = picked(unit.context.model(batch.images), batch.labels)
        for draw in range(settings.draws):
            inside = _square(batch, settings.side, draw, unit.context.seed)
            logits = unit.context.model(torch.where(inside, 0.0, batch.images))
            changes.append(clean - picked(logits, batch.labels))
            for name, found in summed.items():
                foretold[name].append((found * inside).sum((1, 2, 3)))
    columns: Columns = {}
    unit_of_logits = factor_of(unit.context.model)
    for name, sums in foretold.items():
        raw, scaled = quality.infidelity(torch.stack(sums, 1), torch.stack(changes, 1))
        own = {} if name.startswith(CONTROL) else {"infidelity_raw": raw / unit_of_logits / unit_of_logits}
        columns[name] = {"infidelity": scaled, **own}
    return columns


def _square(batch: Batch, share: float, draw: int, seed: int) -> Tensor:
    """(N, 1, H, W) bool, a square of each image."""
    height, width = batch.images.shape[2:]
    side = max(1, round(share * min(height, width)))
    ids = batch.example_ids
    place = keyed_uniform(seed, "infidelity", ids, (2,), extra=torch.full_like(ids, draw))
    inside = []
    for axis, size in enumerate((height, width)):
        first = (place[:, axis, None] * (size - side + 1)).floor()
        position = torch.arange(size, device=place.device)
        inside.append((position >= first) & (position < first + side))
    return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


def sensitivities(
    protocol: ControlledProtocol, unit: Unit, batch: Batch, maps: dict[str, Tensor], *, settings: SensitivityParameters
) -> Columns:
    """Max-sensitivity and local Lipschitz over uniform draws from the L-inf ball, cut to [0, 1]."""
    worst: dict[str, Tensor] = {}
    for draw in range(settings.draws):
        moved = perturbed(batch, settings.radius, draw, unit.context.seed, stream="sensitivity")
        distances = (moved - batch.images).flatten(1).norm(dim=1)
        for name, copies in protocol.all_attributions(unit, replace(batch, images=moved), own=False):
            found = quality.sensitivity(maps[name], copies, distances)
            worst[name] = torch.maximum(found, worst.get(name, found))
    return {name: {"max_sensitivity": most, "local_lipschitz": steepest} for name, (most, steepest) in worst.items()}


def road(unit: Unit, batch: Batch, maps: dict[str, Tensor], settings: RoadParameters) -> Columns:
    """Whether the net is right without the most, without the least important pixels: the mean over shares."""
    context = unit.context
    noise = settings.noise * keyed_normal(context.seed, "road", batch.example_ids, batch.images.shape[1:])

    def right(removed: Tensor) -> Tensor:
        return quality.right_without(context.model, batch.images, batch.labels, removed, noise=noise).float()

    columns: Columns = {}
    for name, found in maps.items():
        both = [
            torch.stack([right(most), right(least)])
            for most, least in quality.extreme_pixels(heat_maps(found), batch.example_ids, settings.shares)
        ]
        most, least = torch.stack(both).mean(0)
        columns[name] = {"road": most, "road_least": least}
    return columns


def sufficiencies(
    batch: Batch, maps: dict[str, Tensor], references: dict[str, quality.References], nearest: int
) -> Columns:
    """Sufficiency against the data set's first images, whichever examples the unit has."""
    columns: Columns = {}
    for name, others in references.items():
        similar = others.nearest(heat_maps(maps[name]), batch.example_ids, nearest)
        columns[name] = {"sufficiency": quality.sufficiency(similar, batch.predictions, others)}
    return columns


def references_of(protocol: ControlledProtocol, unit: Unit, count: int) -> dict[str, quality.References]:
    """The maps of the data set's first images by every subject, those that are not finite left out."""
    context, count = unit.context, min(count, len(unit.context.dataset))
    images = context.dataset.pixels(slice(0, count)).to(context.device)
    with torch.no_grad():
        cuts = torch.split(images, max(1, context.batch_size))
        said = torch.cat([answers(context.model(cut)) for cut in cuts])
    labels, ids = context.dataset.labels[:count].to(context.device), torch.arange(count, device=context.device)
    others, found = Batch(images, labels, ids, said), {}
    for name, signed in protocol.all_attributions(unit, others, own=False):
        maps = heat_maps(signed)
        fine = maps.flatten(1).isfinite().all(1)
        found[name] = quality.References(others.example_ids[fine], others.predictions[fine], maps[fine])
    return found


def insertion(
    unit: Unit, batch: Batch, maps: dict[str, Tensor], settings: InsertionParameters, *, background: Background
) -> Columns:
    """Areas under the insertion and deletion curves, as the suite `insertion` has them."""
    ground = background_of(unit.context, background)
    plain = ground.expand_as(batch.images)
    games = (("insertion", batch.images, plain), ("deletion", plain, batch.images))
    columns: Columns = {name: {} for name in maps}
    for game, first, last in games:
        ends = None  # where all pixels are of one picture, whatever the map
        for name, found in maps.items():
            ranks = pixel_ranks(heat_maps(found), batch.example_ids)
            curve = insertion_curve(
                unit.context.model, first, batch.labels, ranks, background=last, steps=settings.steps, ends=ends
            )
            ends = curve[:, [0, -1]]
            columns[name][game] = curve_area(curve)
    return columns
