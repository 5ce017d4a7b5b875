"""localisation: in a mosaic of four test images, does the map of a class lie on the image of that class.

Mosaics are made of the data set's own images (bench.attributions.quality.localisation), so that no boxes are needed.
Chance is a quarter, and what a control reaches is no merit of the net.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar, Literal

import pandas as pd
import torch

from bench.attacks.losses import answers
from bench.attributions.quality.localisation import Tiles, make_mosaics, pointing_game, relevance_mass, top_k_inside
from bench.core.errors import BenchError
from bench.leaderboard.metrics import ExampleValues, MetricKey
from bench.protocols.explanations.base import Batch, MapParameters, TopShare, Unit, by_example
from bench.protocols.explanations.controlled import ControlledProtocol, Declared, finite


class Parameters(MapParameters):
    top_share: TopShare = 0.1
    tiles: Tiles = "quarters"
    relevance: Literal["positive", "absolute"] = "positive"
    """What of signed maps counts: of their sums over channels what speaks for the class, as in the grid pointing game;
    or absolute values, summed over channels."""


class Localisation(ControlledProtocol):
    """Pointing game, relevance mass and top-k intersection on 2x2 mosaics, for each method and four controls.

    Records hold one row per example and `attribution`: a column per metric, and `mosaic_accuracy`, whether the net
    calls the mosaic by the explained class.
    """

    parameters_type = Parameters
    parameters: Parameters
    declared: ClassVar[Declared] = {
        "relevance_mass": ("higher", "share", "headline"),
        "pointing_game": ("higher", "share", "usual"),
        "top_k_inside": ("higher", "share", "usual"),
    }

    def require_images(self, shape: tuple[int, ...], name: str) -> None:
        super().require_images(shape, name)
        height, width = shape[-2:]
        if min(height, width) < 4:
            raise BenchError(f"mosaics need images of at least 4x4 pixels, those of {name} have {height}x{width}.")

    def rows(self, unit: Unit, batch: Batch) -> Iterator[pd.DataFrame]:
        context = unit.context
        mosaics, inside = make_mosaics(
            context.dataset, batch.example_ids, self.parameters.tiles, seed=context.seed, device=context.device
        )
        seen = replace(batch, images=mosaics)
        with torch.no_grad():
            named = (answers(context.model(mosaics)) == batch.labels).float()
        for name, signed in self.all_attributions(unit, seen):
            context.on_progress(len(batch.labels))
            positive = self.parameters.relevance == "positive"
            prepared = unit.prepared(signed.sum(1, keepdim=True).clamp_min(0.0) if positive else signed)
            columns = {
                "relevance_mass": relevance_mass(prepared.maps, inside),
                "pointing_game": pointing_game(prepared.maps, inside),
                "top_k_inside": top_k_inside(prepared.top, prepared.maps, inside),
            }
            yield batch.frame({"attribution": name, **finite(columns, signed), "mosaic_accuracy": named})

    def example_values(self, dataset: str, records: pd.DataFrame) -> list[ExampleValues]:
        clean, *others = super().example_values(dataset, records)
        rows = records.drop_duplicates("example_id")
        named = ExampleValues(MetricKey("mosaic_accuracy"), by_example(rows, "mosaic_accuracy"), "descriptive", "share")
        return [clean, named, *others]
