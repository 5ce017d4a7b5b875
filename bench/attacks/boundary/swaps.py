"""After the search in L1: one value of the point found goes back, and another moves in its place.

Where few pixels decide, as in nets trained in L-inf whose first layer swallows what is small, most of those that the
search ends with belong to a shorter point, and one or two don't. The gradient at the point does not tell which would:
a pixel that has not moved has none there. Summed over the points far off where the search looked for its starts
(few_pixels) it does, and whether the exchange fools the net is seen by forward passes alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.attacks.boundary.few_pixels import FarGradients
from bench.attacks.losses import answers, margin, wrong_classes
from bench.attacks.norms import per_example

GIVING = 6
"""So many of the values that have moved furthest go back, one at a time."""
TAKING = 32
"""So many others take their place in turns, those that gain most at an end of [0, 1] by the gradients far off."""
TRIED = 8
"""Of these exchanges as many, those with the largest margin, are shortened until the net is right again."""
REACH = 1.3
"""The other value moves up to so many times as far as the one that goes back."""
HALVINGS = 5
AT_ONCE = 2
"""So many images' exchanges pass the net together."""


def exchanged(model: nn.Module, images: Tensor, labels: Tensor, points: Tensor, *, far: FarGradients) -> Tensor:
    """Each image's shortest point that differs from `points` by one exchange and fools the net, else `points`.

    Args:
        images: (N, C, H, W) in [0, 1], labels (N,).
        points: (N, C, H, W) misclassified.
    """
    gradient = far.towards(wrong_classes(model(points), labels, 1)[:, 0])
    parts = zip(*(torch.split(one, AT_ONCE) for one in (images, labels, points, gradient)), strict=True)
    return torch.cat([_exchanged(model, *part) for part in parts])


def _exchanged(model: nn.Module, images: Tensor, labels: Tensor, points: Tensor, gradient: Tensor) -> Tensor:
    flat, found, gradient = images.flatten(1), points.flatten(1), gradient.flatten(1)
    values = flat.shape[1]
    ends = (gradient > 0).to(flat.dtype)
    taking = (gradient * (ends - flat)).topk(min(TAKING, values), dim=1).indices
    moved = (found - flat).abs()
    giving = moved.topk(min(GIVING, values), dim=1).indices
    back, there = giving.repeat_interleave(taking.shape[1], dim=1), taking.repeat(1, giving.shape[1])

    trials = found[:, None].repeat(1, back.shape[1], 1).scatter_(2, back[..., None], flat.gather(1, back)[..., None])
    low = trials.gather(2, there[..., None])[..., 0]
    room = ends.gather(1, there) - low
    high = low + room.sign() * torch.minimum(room.abs(), REACH * moved.gather(1, back))
    logits = model(_placed(trials, there, high, images))
    gain = margin(logits, labels.repeat_interleave(back.shape[1])).view_as(high)
    best = gain.topk(min(TRIED, gain.shape[1]), dim=1)
    low, high, there = (one.gather(1, best.indices) for one in (low, high, there))
    trials = trials.gather(1, best.indices[..., None].expand(-1, -1, values))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        wrong = answers(model(_placed(trials, there, middle, images))).view_as(middle) != labels[:, None]
        low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)
    placed = _placed(trials, there, high, images).view_as(trials)
    lengths = torch.where(best.values > 0, (placed - flat[:, None]).abs().sum(2), torch.inf)
    least, chosen = lengths.min(1)
    shortest = placed[torch.arange(len(placed), device=placed.device), chosen].view_as(images)
    return torch.where(per_example(least < moved.sum(1), images), shortest, points)


def _placed(trials: Tensor, there: Tensor, values: Tensor, images: Tensor) -> Tensor:
    """(N * T, C, H, W) trials (N, T, D) with the values (N, T) at their places (N, T)."""
    return trials.scatter(2, there[..., None], values[..., None]).view(-1, *images.shape[1:])
