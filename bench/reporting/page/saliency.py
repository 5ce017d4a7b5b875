"""Saliency panels as the page shows them; bench.reporting.saliency.attributions computes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SaliencyPanel:
    """One image of one model, before and after an attack.

    Attributes:
        example_id: position in the split.
        truth, before, after: names of the classes: true, predicted, predicted under attack.
        outcome: `misclassified` before any attack, `broken`, or `withstood` the attack.
        cosine: between both maps, of the whole signed maps.
        images: four data URIs of small PNGs: image, map, attacked image, map of it.
    """

    example_id: int
    truth: str
    before: str
    after: str
    outcome: str
    cosine: float
    images: tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class SaliencySet:
    """The panels of all models of one data set.

    Attributes:
        method: what was computed and how, in a sentence or two.
        panels: full name of a model -> its panels.
    """

    dataset: str
    method: str
    panels: Mapping[str, Sequence[SaliencyPanel]]
