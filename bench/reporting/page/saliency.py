"""The page's galleries as small pictures in the page itself: saliency maps, and adversarial images that runs kept."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data import ImageDataset
from bench.leaderboard.evidence.finished_runs import Run
from bench.leaderboard.labels import balls
from bench.reporting.adversarial import AdversarialRow, signed_difference
from bench.reporting.saliency.figure import SIGNED_COLOURS
from bench.reporting.saliency.rows import PanelRow, PanelSettings, scale_of

_LONGEST_SIDE = 96
_SHADES = 31
"""Steps from neutral to full colour: finer ones cannot be told apart, and the palette is most of a small PNG."""


@dataclass(frozen=True, slots=True)
class SaliencyPanel:
    """One image of one model, before and after an attack on its prediction.

    Attributes:
        outcome: `misclassified` before any attack, `broken`, or `withstood` the attack.
        images: four data URIs of small PNGs: image, map, attacked image, map of it.
    """

    row: PanelRow
    outcome: str
    images: tuple[str, ...]


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


@dataclass(frozen=True, slots=True)
class AdversarialSet:
    """Adversarial images of one run.

    Attributes:
        panels: a row of the run with three data URIs of small PNGs: clean image, adversarial image, what was added.
    """

    model: str
    suite: str
    panels: Sequence[tuple[AdversarialRow, tuple[str, str, str]]]


def saliency_set(dataset: ImageDataset, rows: Sequence[PanelRow], settings: PanelSettings) -> SaliencySet:
    """The rows, each of one map, by model; the attack is on the prediction."""
    panels: dict[str, list[SaliencyPanel]] = {}
    for row in rows:
        (pair,) = row.maps
        outcome = "misclassified" if row.before != row.truth else "withstood" if row.kept else "broken"
        pictures = picture(row.image), heat_map(pair.before), picture(row.attacked), heat_map(pair.after)
        panels.setdefault(row.model, []).append(SaliencyPanel(row, outcome, pictures))
    small = max(dataset.shape[2:]) > _LONGEST_SIDE
    method = (
        f"The first {len({row.example_id for row in rows})} images of the {dataset.name} {dataset.split} split that "
        "show different classes; none was picked by hand. From left to right: the image, the gradient of its true "
        f"class's score, the image after PGD on the margin ({settings.attack.steps} steps, "
        f"{balls({settings.norm: settings.eps})}, one random start), the gradient there. Every map has its "
        f"own scale, symmetric around zero{', channels added up' if dataset.shape[1] > 1 else ''}"
        f"{'; pictures are shrunk' if small else ''}. This single attack is weaker than the suites': an image that "
        "withstood it may be broken there."
    )
    return SaliencySet(dataset.name, method, panels)


def adversarial_set(run: Run, rows: Sequence[AdversarialRow]) -> AdversarialSet:
    """The rows as the page shows them."""
    panels = [
        (row, (picture(row.clean), picture(row.image), heat_map(signed_difference(row).astype("float64"))))
        for row in rows
    ]
    return AdversarialSet(run.model, str(run.shared["suite"]), panels)


def picture(image: NDArray[np.float32]) -> str:
    """An image (C, H, W) in [0, 1] as the data URI of a small PNG."""
    pixels = np.rint(image.clip(0, 1) * 255).astype(np.uint8)
    return _png(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels[:3].transpose(1, 2, 0)))


def heat_map(values: NDArray[np.float64]) -> str:
    """A signed map (H, W) as the data URI of a small PNG: blue below zero, white at zero, red above.

    The scale is the map's own, as `scale_of` has it; a map of zeros is white.
    """
    shades = np.rint(np.clip(values / scale_of((values,), signed=True).high, -1, 1) * _SHADES).astype(np.int16)
    colours = mpl.colormaps[SIGNED_COLOURS](np.linspace(0, 1, 2 * _SHADES + 1))[:, :3]
    return _png((shades + _SHADES).astype(np.uint8), np.rint(255 * colours).astype(np.uint8))


def _png(pixels: NDArray[np.uint8], palette: NDArray[np.uint8] | None = None) -> str:
    made = Image.fromarray(pixels)
    if palette is not None:
        made = made.convert("L")
        made.putpalette(palette.tobytes())
    if max(made.size) > _LONGEST_SIDE:
        made = made.convert("RGB")
        made.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.BOX)
    buffer = io.BytesIO()
    made.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
