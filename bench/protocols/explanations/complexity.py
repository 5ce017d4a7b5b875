"""complexity: how few pixels a map names.

Gini coefficient (Chalasani et al. 2020), entropy (Bhatt, Weller, Moura 2020) and the share of pixels that count at all.
A map that a reader can take in is not for that reason true: read them beside `faithfulness`, and beside the controls.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pandas as pd
from pydantic import Field

from bench.attributions.heat_maps import heat_maps
from bench.attributions.quality.complexity import effective_complexity, entropy, sparseness
from bench.protocols.explanations.base import Batch, MapParameters, Unit
from bench.protocols.explanations.controlled import ControlledProtocol, Declared, finite


class Parameters(MapParameters):
    effective_above: float = Field(default=0.01, ge=0, lt=1)
    """A pixel counts if it has more than this of the map's largest value."""


class Complexity(ControlledProtocol):
    """Sparseness, entropy and effective complexity of each method's maps, and of four controls.

    Records hold one row per example and `attribution`, with a column per metric.
    """

    parameters_type = Parameters
    parameters: Parameters
    declared: ClassVar[Declared] = {
        "sparseness": ("higher", "number", "headline"),
        "entropy": ("lower", "number", "usual"),
        "effective_complexity": ("lower", "share", "usual"),
    }

    def rows(self, unit: Unit, batch: Batch) -> Iterator[pd.DataFrame]:
        for name, signed in self.all_attributions(unit, batch):
            maps = heat_maps(signed)
            columns = {
                "sparseness": sparseness(maps),
                "entropy": entropy(maps),
                "effective_complexity": effective_complexity(maps, self.parameters.effective_above),
            }
            unit.context.on_progress(len(batch.labels))
            yield batch.frame({"attribution": name, **finite(columns, signed)})
