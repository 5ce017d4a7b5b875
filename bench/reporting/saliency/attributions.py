"""Saliency panels for the web page: a few images of each model, their maps, and both again under an attack."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.attacks.pgd import pgd
from bench.attacks.verification import pull_inside, verify
from bench.attributions.gradients import gradient_maps
from bench.catalog.models import ModelEntry, load_model
from bench.core.keyed_random import keyed_uniform
from bench.core.threat import NORM_LABELS, Norm
from bench.data import ImageDataset
from bench.reporting.page import SaliencyPanel, SaliencySet

STEPS = 40
_STEP_SHARE = 0.1
_SEED = 0
_LONGEST_SIDE = 96
_CLIP = 0.99
_SHADES = 31
"""Steps from neutral to full colour: finer ones cannot be told apart, and the palette is most of a small PNG."""


@dataclass(frozen=True, slots=True)
class SaliencyRequest:
    """What the panels of one data set show.

    Attributes:
        entries: the models.
        count: how many images.
        norm, eps: the attack's ball, in pixels of [0, 1].
    """

    entries: Sequence[ModelEntry]
    dataset: ImageDataset
    count: int
    norm: Norm
    eps: float
    device: torch.device


def saliency_panels(request: SaliencyRequest) -> SaliencySet:
    """Panels of every model on the same images: the first of the split that show different classes.

    The map is the gradient of the true class's logit; the attack is PGD on the margin from a random start keyed by the
    image, judged by the verification that judges every adversarial example here.

    Raises:
        BenchError: a model's weights are not what its card names.
    """
    ids = first_of_each_class(request.dataset.labels, request.count)
    panels = {entry.card.name: _panels(entry, ids, request) for entry in request.entries}
    small = max(request.dataset.shape[2:]) > _LONGEST_SIDE
    method = (
        f"The first {len(ids)} images of the {request.dataset.name} {request.dataset.split} split that show different "
        "classes; none was picked by hand. From left to right: the image, the gradient of its true class's score, the "
        f"image after PGD on the margin ({STEPS} steps, {NORM_LABELS[request.norm]} {request.eps:.4g}, one random "
        "start), the gradient there. Every map has its own scale, symmetric around zero"
        f"{', channels added up' if request.dataset.shape[1] > 1 else ''}"
        f"{'; pictures are shrunk' if small else ''}. This single attack is weaker than the suites': an image that "
        "withstood it may be broken there."
    )
    return SaliencySet(request.dataset.name, method, panels)


def first_of_each_class(labels: Tensor, count: int) -> Tensor:
    """Positions of the first images of `count` different classes, in order; fewer where there are fewer classes."""
    seen: dict[int, int] = {}
    for position, label in enumerate(labels.tolist()):
        seen.setdefault(label, position)
        if len(seen) == count:
            break
    return torch.tensor(sorted(seen.values()))


def _panels(entry: ModelEntry, ids: Tensor, request: SaliencyRequest) -> list[SaliencyPanel]:
    model = load_model(entry, request.device)
    images = request.dataset.pixels(ids).to(request.device)
    labels = request.dataset.labels[ids].to(request.device)
    start = keyed_uniform(_SEED, "saliency", ids.to(request.device), images.shape[1:])
    attacked = pgd(
        model, images, labels, norm=request.norm, eps=request.eps, steps=STEPS,
        step_size=_STEP_SHARE * request.eps, loss="margin", start=start,
    )  # fmt: skip
    radius = images.new_full((len(images),), request.eps)
    verified, _, _ = verify(model, attacked, images, labels, radius, request.norm)
    attacked = pull_inside(attacked, images, radius, request.norm)
    with torch.no_grad():
        before, after = (model(batch).argmax(1).tolist() for batch in (images, attacked))
    maps = [gradient_maps(model, batch, labels) for batch in (images, attacked)]
    cosines = torch.nn.functional.cosine_similarity(maps[0].flatten(1), maps[1].flatten(1)).tolist()
    classes = request.dataset.class_names
    panels = []
    for row, (position, label) in enumerate(zip(ids.tolist(), labels.tolist(), strict=True)):
        broken = "broken" if bool(verified[row]) else "withstood"
        outcome = "misclassified" if before[row] != label else broken
        pictures = (picture(images[row]), heat_map(maps[0][row]), picture(attacked[row]), heat_map(maps[1][row]))
        panels.append(
            SaliencyPanel(
                position, classes[label], classes[before[row]], classes[after[row]], outcome, cosines[row], pictures
            )
        )  # fmt: skip
    return panels


def picture(image: Tensor) -> str:
    """An image (C, H, W) in [0, 1] as the data URI of a small PNG."""
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return _png(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels[:3].transpose(1, 2, 0)))


def heat_map(gradient: Tensor) -> str:
    """A signed map (C, H, W) as the data URI of a small PNG: blue below zero, white at zero, red above.

    The scale is symmetric and its own for each map: full colour at the 99th percentile of magnitudes. An all-zero map
    is white.
    """
    signed = gradient.sum(0).double().cpu().numpy()
    scale = float(np.quantile(np.abs(signed), _CLIP)) or float(np.abs(signed).max()) or 1.0
    shades = np.rint(np.clip(signed / scale, -1, 1) * _SHADES).astype(np.int16) + _SHADES
    return _png(shades.astype(np.uint8), _diverging())


def _diverging() -> NDArray[np.uint8]:
    """63 colours, the middle one neutral: ColorBrewer's RdBu from matplotlib, perceptually even to both sides."""
    import matplotlib as mpl

    colours = mpl.colormaps["RdBu_r"](np.linspace(0, 1, 2 * _SHADES + 1))[:, :3]
    shades: NDArray[np.uint8] = np.rint(255 * colours).astype(np.uint8)
    return shades


def _png(pixels: NDArray[np.uint8], palette: NDArray[np.uint8] | None = None) -> str:
    from PIL import Image

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
