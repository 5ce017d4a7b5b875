"""Insertion and deletion: the class's probability as pixels of an image appear, or vanish, in an order."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.nets.logit_scale import factor_of


def shown_counts(pixels: int, steps: int) -> list[int]:
    """How many pixels are shown at each of `steps` + 1 points, from none to all."""
    return [round(step * pixels / steps) for step in range(steps + 1)]


def insertion_curve(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    ranks: Tensor,
    background: Tensor,
    steps: int,
    ends: Tensor | None = None,
) -> Tensor:
    """Probability of `labels` as pixels of `images` replace those of `background` in the order of `ranks`.

    The deletion curve is the insertion curve with image and background exchanged, so it starts at the whole image and
    ends at the background.

    Args:
        images: (N, C, H, W) in [0, 1].
        ranks: (N, H, W), see `pixel_scores.pixel_ranks`.
        background: (N, C, H, W) or broadcastable to it.
        ends: (N, 2), the first and the last value where they are known, as they are from another map's curve.

    Returns:
        (N, steps + 1) probabilities; the area under the curve is `curve_area` of it.

    Source: Petsiuk, Das, Saenko 2018; LGA, section 4.5, there to 95 % of the pixels only.
    """
    columns, unit = [], factor_of(model)
    counts = shown_counts(ranks.shape[1] * ranks.shape[2], steps)
    with torch.no_grad():
        for count in counts if ends is None else counts[1:-1]:
            mask = (ranks < count).to(images.dtype)[:, None]
            shown = torch.lerp(background.expand_as(images), images, mask)
            columns.append((model(shown) / unit).softmax(1).gather(1, labels[:, None]).squeeze(1))
    inner = torch.stack(columns, dim=1) if columns else labels.new_zeros(len(labels), 0, dtype=images.dtype)
    return inner if ends is None else torch.cat([ends[:, :1], inner, ends[:, 1:]], dim=1)


def curve_area(curve: Tensor) -> Tensor:
    """Area under a curve over [0, 1], by the trapezoidal rule; (N, P) -> (N,)."""
    return torch.trapezoid(curve, dx=1.0 / (curve.shape[1] - 1), dim=1)
