"""How alike two heat maps of the same image are: cosine, Pearson, Spearman, SSIM, top-k intersection, centre shift.

Every number depends on its own two maps alone, never on the rest of the batch. A map that is all zero says nothing,
so its similarity with any map is 0, with itself too; the same holds for a constant map under Pearson and Spearman,
which are not defined there. A map with NaN or infinite values has none: NaN. Scaling a map by a positive factor changes
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from bench.attributions.heat_maps import mass_centres
from bench.core.errors import BenchError

Measure = Literal["cosine", "pearson", "spearman", "ssim", "top_k", "centre_shift"]
MEASURES: tuple[Measure, ...] = get_args(Measure)
DISTANCES: frozenset[Measure] = frozenset({"centre_shift"})
"""Measures that grow as maps differ; the others are similarities, at most 1."""

SSIM_WINDOW, _SIGMA = 11, 1.5
_INDEX_BITS = 32


@dataclass
class PreparedMaps:
    """Heat maps with what measures need of one map alone, computed once and kept.

    Attributes:
        maps: (N, H, W), on the scale they came in.
        top_share: the share of the pixels that `top_k` looks at, at least one pixel.
    """

    maps: Tensor
    top_share: float = 0.1

    def __post_init__(self) -> None:
        if self.maps.dim() != 3:
            raise ValueError("heat maps must be (N, H, W)")
        if not 0 < self.top_share <= 1:
            raise BenchError(f"top_share {self.top_share} is not a share of the pixels; use more than 0 and at most 1.")

    @property
    def k(self) -> int:
        return max(1, round(self.top_share * self.maps.shape[1] * self.maps.shape[2]))

    @cached_property
    def scaled(self) -> Tensor:
        """(N, H * W), each map over its largest absolute value."""
        flat = self.maps.detach().float().flatten(1)
        return flat / flat.abs().amax(1, keepdim=True).clamp_min(1e-38)

    @cached_property
    def nonzero(self) -> Tensor:
        """(N,) 1 where the map is not all zero, else 0."""
        return (self.scaled.abs().amax(1) > 0).float()

    @cached_property
    def finite(self) -> Tensor:
        """(N,) bool, whether every value of the map is a number."""
        return self.maps.detach().flatten(1).isfinite().all(1)

    @property
    def empty(self) -> Tensor:
        """(N,) bool, whether the map is zero everywhere."""
        return self.finite & (self.nonzero == 0)

    @cached_property
    def keys(self) -> Tensor:
        """(N, H * W) int64, ascending: a pixel's value above, its place below; see `sorted_keys`."""
        return sorted_keys(self.maps.detach().float().flatten(1))

    @cached_property
    def centred_ranks(self) -> Tensor:
        """(N, H * W) ranks less their mean, of length 1; zero for a constant map."""
        return _centred_unit(_average_ranks(self.keys))

    @cached_property
    def centred(self) -> Tensor:
        """(N, H * W) values less their mean, of length 1; zero for a constant map."""
        varies = (self.scaled.amax(1) > self.scaled.amin(1)).float()[:, None]
        return _centred_unit(self.scaled) * varies

    @cached_property
    def top(self) -> Tensor:
        """(N, k) the places of the k largest values; of equal values the earlier place counts as larger."""
        count = self.keys.shape[1]
        return places(self.keys[:, count - self.k :], count)

    @cached_property
    def blurred(self) -> tuple[Tensor, Tensor]:
        """Local means of the scaled map and of its square, for SSIM."""
        image = self.scaled.view(self.maps.shape)
        return _blur(image), _blur(image * image)


def similarities(first: PreparedMaps, second: PreparedMaps, measures: Sequence[Measure]) -> dict[Measure, Tensor]:
    """All `measures` of the pairs (first[i], second[i]); (N,) float32 each, NaN where a map is not finite."""
    defined = first.finite & second.finite
    return {name: torch.where(defined, _FUNCTIONS[name](first, second), torch.nan) for name in measures}


def sorted_keys(values: Tensor) -> Tensor:
    """Each row's entries as int64 keys in ascending order, value before place; (N, P) float32 -> (N, P) int64.

    Keys are unique, so that ties are broken by place alone, the earlier place last: the same on every device. One
    sort gives both order and values, and on a CPU numpy's vectorised sort of integers is many times as fast as
    torch's of floats.
    """
    count = values.shape[1]
    bits = (values + 0.0).contiguous().view(torch.int32).to(torch.int64)  # + 0.0 turns -0.0 into 0.0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    position = torch.arange(count - 1, -1, -1, device=values.device)
    return ascending((ordered << _INDEX_BITS) | position)


def ascending(rows: Tensor) -> Tensor:
    """Each row sorted; on a CPU in its place, by numpy, many times as fast as torch, which also tells where."""
    if rows.device.type != "cpu":
        return rows.sort(dim=1).values
    rows.numpy().sort(axis=1)
    return rows


def places(keys: Tensor, count: int) -> Tensor:
    """Where the entries of sorted keys stood in their row of `count` values; int64 of the shape of `keys`."""
    return (count - 1) - (keys & 0xFFFFFFFF)


def _average_ranks(keys: Tensor) -> Tensor:
    """Ranks from 0, equal values sharing their mean rank; sorted keys (N, P) -> (N, P) float32 in pixel order."""
    count = keys.shape[1]
    position = torch.arange(count, device=keys.device, dtype=torch.int32).expand(keys.shape)
    changes = ((keys[:, 1:] ^ keys[:, :-1]) >> _INDEX_BITS) != 0
    edge = torch.ones_like(changes[:, :1])
    first = _running_max(position * torch.cat([edge, changes], dim=1))
    mirrored = position * torch.cat([changes, edge], dim=1).flip(1)  # the same from the other end
    last = (count - 1) - _running_max(mirrored).flip(1)
    ranks = (first + last).float() * 0.5
    return torch.empty_like(ranks).scatter_(1, places(keys, count), ranks)


def _running_max(values: Tensor) -> Tensor:
    if values.device.type == "cpu":  # several times as fast as torch's, which also tracks where
        return torch.from_numpy(np.maximum.accumulate(values.numpy(), axis=1))
    return values.cummax(1).values


def _centred_unit(values: Tensor) -> Tensor:
    centred = values - values.mean(1, keepdim=True)
    return centred.div(centred.norm(dim=1, keepdim=True).clamp_min(1e-30))


def _blur(images: Tensor) -> Tensor:
    """Gaussian local means where the whole window lies inside; (N, H, W) -> (N, H - 10, W - 10)."""
    if min(images.shape[1:]) < SSIM_WINDOW:
        raise BenchError(
            f"ssim needs maps of at least {SSIM_WINDOW}x{SSIM_WINDOW} pixels, these have "
            f"{images.shape[1]}x{images.shape[2]}; leave it out."
        )
    offsets = torch.arange(SSIM_WINDOW, device=images.device, dtype=images.dtype) - (SSIM_WINDOW - 1) / 2
    weights = torch.exp(-0.5 * (offsets / _SIGMA) ** 2)
    weights = weights / weights.sum()
    rows = F.conv2d(images[:, None], weights.view(1, 1, -1, 1))
    return F.conv2d(rows, weights.view(1, 1, 1, -1)).squeeze(1)


def _cosine(first: PreparedMaps, second: PreparedMaps) -> Tensor:
    lengths: Tensor = (first.scaled.norm(dim=1) * second.scaled.norm(dim=1)).clamp_min(1e-30)
    return ((first.scaled * second.scaled).sum(1) / lengths).clamp(-1.0, 1.0)


def _ssim(first: PreparedMaps, second: PreparedMaps) -> Tensor:
    """Structural similarity (Wang et al. 2004) of the maps over their maxima: 11x11 Gaussian window, range 1."""
    (mean1, square1), (mean2, square2) = first.blurred, second.blurred
    product = _blur((first.scaled * second.scaled).view(first.maps.shape))
    variance1, variance2, covariance = square1 - mean1**2, square2 - mean2**2, product - mean1 * mean2
    low, high = 0.01**2, 0.03**2
    similarity = (2 * mean1 * mean2 + low) * (2 * covariance + high)
    similarity = similarity / ((mean1**2 + mean2**2 + low) * (variance1 + variance2 + high))
    return similarity.flatten(1).mean(1).clamp(-1.0, 1.0) * first.nonzero * second.nonzero


def _top_k(first: PreparedMaps, second: PreparedMaps) -> Tensor:
    """The share of the first map's k largest pixels that are among the second's k largest (Ghorbani et al. 2019)."""
    chosen = torch.zeros_like(second.scaled).scatter_(1, second.top, 1.0)
    return chosen.gather(1, first.top).mean(1) * first.nonzero * second.nonzero


def _centre_shift(first: PreparedMaps, second: PreparedMaps) -> Tensor:
    """How far the centre of mass moved, over the image's diagonal, in [0, 1] (Ghorbani et al. 2019).

    1 where a map is all zero, which says nothing: the worst, as of the similarities.
    """
    height, width = first.maps.shape[1:]
    shift: Tensor = (mass_centres(first.maps.detach().float()) - mass_centres(second.maps.detach().float())).norm(dim=1)
    diagonal = math.hypot(height - 1, width - 1)
    return torch.where(first.nonzero * second.nonzero > 0, shift / diagonal, 1.0)


_FUNCTIONS: dict[Measure, Callable[[PreparedMaps, PreparedMaps], Tensor]] = {
    "cosine": _cosine,
    "pearson": lambda first, second: (first.centred * second.centred).sum(1).clamp(-1.0, 1.0),
    "spearman": lambda first, second: (first.centred_ranks * second.centred_ranks).sum(1).clamp(-1.0, 1.0),
    "ssim": _ssim,
    "top_k": _top_k,
    "centre_shift": _centre_shift,
}
