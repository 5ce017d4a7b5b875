"""Mosaics of four images, and whether a map finds the one of the explained class: ground truth without boxes.

Source: the grid pointing game (Böhle, Fritz, Schiele, CVPR 2021) and Focus (Arias-Duart et al. 2022). Here four tiles
have the size of one image, so that nets which take one size alone can be judged.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.core.devices import exact
from bench.core.errors import BenchError
from bench.core.keyed_random import keyed_uniform
from bench.data import ImageDataset

Tiles = Literal["quarters", "whole"]


def make_mosaics(
    data: ImageDataset, ids: Tensor, tiles: Tiles, *, seed: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """For each example a mosaic of it and three images of other classes of the data set, at places keyed by it.

    The other classes differ from each other too, where the data set has four or more.

    Args:
        tiles: `whole` images of half the size, or `quarters`: of each image the part that lies where its tile does, so
            that a net which knows objects of one size at one place sees what it knows.

    Returns:
        mosaics (N, C, H, W) in [0, 1], and (N, H, W) bool, where the explained image is.

    Raises:
        BenchError: all images of the data set have one class.
    """
    ids = ids.cpu()
    rows = torch.cat([ids[:, None], _others(data, ids, seed)], dim=1)
    place = (4 * keyed_uniform(seed, "mosaic/place", ids, (1,))).long()
    order = (torch.arange(4) + 4 - place) % 4  # the example goes to `place`, the others follow it
    pixels = data.pixels(rows.gather(1, order).flatten()).to(device)
    height, width = pixels.shape[2:]
    grid = pixels.view(len(ids), 2, 2, *pixels.shape[1:])
    if tiles == "whole":
        images = F.avg_pool2d(grid.permute(0, 3, 1, 4, 2, 5).reshape(len(ids), -1, 2 * height, 2 * width), 2)
    else:
        left, right = grid[:, :, 0, ..., : width // 2], grid[:, :, 1, ..., width // 2 :]
        upper, lower = torch.cat([left, right], -1).unbind(1)
        images = torch.cat([upper[..., : height // 2, :], lower[..., height // 2 :, :]], -2)
    inside = _half(height, place // 2)[:, :, None] & _half(width, place % 2)[:, None, :]
    return images, inside.to(device)


def _others(data: ImageDataset, ids: Tensor, seed: int) -> Tensor:
    """(N, 3) rows of images of other classes than the example's."""
    counts = data.labels.bincount(minlength=data.num_classes)
    present = counts.nonzero().squeeze(1)
    if len(present) < 2:
        raise BenchError(f"mosaics need images of two classes or more; {data.name} ({data.source}) has one.")
    by_class, first = data.labels.argsort(stable=True), counts.cumsum(0) - counts
    drawn = keyed_uniform(seed, "mosaic/classes", ids, (len(present),))
    drawn = drawn.masked_fill(present == data.labels[ids][:, None], 2.0)
    nearest = drawn.argsort(1)[:, : len(present) - 1]
    classes = present[nearest[:, torch.arange(3) % (len(present) - 1)]]
    which = keyed_uniform(seed, "mosaic/images", ids, (3,)) * counts[classes]
    return by_class[first[classes] + torch.minimum(which.long(), counts[classes] - 1)]


def _half(size: int, second: Tensor) -> Tensor:
    """(N, size) bool, the first or the second half; of an odd size the middle belongs to neither."""
    positions = torch.arange(size)
    return torch.where(second.bool(), positions >= size - size // 2, positions < size // 2)


def pointing_game(maps: Tensor, inside: Tensor) -> Tensor:
    """Whether the largest value lies inside; of several largest, the share that does (Zhang et al. 2016); (N,)."""
    flat = maps.flatten(1)
    largest = flat == flat.amax(1, keepdim=True)
    hits = (largest & inside.flatten(1)).sum(1) / largest.sum(1).clamp_min(1)
    return hits * (flat.amax(1) > 0)


def relevance_mass(maps: Tensor, inside: Tensor) -> Tensor:
    """The share of the map's mass that lies inside, 0 for a map without any (Arras et al. 2022); (N, H, W) >= 0."""
    flat = exact(maps).flatten(1)
    flat = flat / flat.amax(1, keepdim=True).clamp_min(1e-300)
    within = inside.flatten(1).to(flat.device)
    return ((flat * within).sum(1) / flat.sum(1).clamp_min(1e-300)).float().to(maps.device)


def top_k_inside(top: Tensor, maps: Tensor, inside: Tensor) -> Tensor:
    """The share of the pixels `top` (N, k) that lie inside, 0 for a map that is zero (Theiner et al. 2022); (N,)."""
    return inside.flatten(1).gather(1, top).float().mean(1) * (maps.flatten(1).amax(1) > 0)
