"""Does a map say what the net does: infidelity, sensitivity, sufficiency, and the net's answer without some pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.attacks.losses import answers
from bench.attributions.pixel_scores import pixel_ranks
from bench.attributions.quality.imputation import impute

_TINY = 1e-30


def infidelity(foretold: Tensor, changes: Tensor) -> tuple[Tensor, Tensor]:
    """From what a map foretells of each perturbation and how the net changed; (N, draws) each.

    Returns:
        raw: (N,) mean of (I . map - (f(x) - f(x - I)))^2 over perturbations I (Yeh et al. 2019, definition 2.1).
        scaled: (N,) the same with the map at its best scale, over the mean of (f(x) - f(x - I))^2: 0 where the map
            foretells every change up to one factor, 1 where it foretells none. NaN where the net never changes. The
            best scale is theirs, section 2 (`normalize=True` of captum), but never negative: a map of the opposite
            sign explains nothing.
    """
    raw = (foretold - changes).square().mean(1)
    told, done = foretold / _largest(foretold), changes / _largest(changes)
    both = (told * done).sum(1).clamp_min(0.0)
    explained = both.square() / (told.square().sum(1) * done.square().sum(1)).clamp_min(_TINY)
    scaled = torch.where((changes != 0).any(1), 1.0 - explained.clamp_max(1.0), torch.nan)
    return raw, torch.where(foretold.isfinite().all(1), scaled, torch.nan)


def sensitivity(maps: Tensor, moved: Tensor, distances: Tensor) -> Tensor:
    """(2, N) how much a map changes from an image x to a copy x'; NaN for a map that is zero everywhere.

    |map(x') - map(x)| / |map(x)|, whose largest is max-sensitivity (Yeh et al. 2019, section 4); and that over
    |x' - x|, whose largest is local Lipschitz (Alvarez-Melis and Jaakkola 2018, of maps of length 1).

    Args:
        maps, moved: attributions (N, C, H, W) of the images and their copies.
        distances: (N,) L2 distance of the copies.
    """
    whole, moves = maps.flatten(1), (moved - maps).flatten(1)
    unit, unit_of_moves = _largest(whole), _largest(moves)
    length = (whole / unit).norm(dim=1)
    change = (moves / unit_of_moves).norm(dim=1) / length * (unit_of_moves / unit)[:, 0]
    change = torch.where(length > 0, change, torch.nan)
    return torch.stack([change, change / distances.clamp_min(_TINY)])


@dataclass(frozen=True, slots=True)
class References:
    """Other examples that a map is compared with.

    Attributes:
        ids: (R,) of the examples.
        answers: (R,) what the net answers there.
        maps: (R, H, W) >= 0.
    """

    ids: Tensor
    answers: Tensor
    maps: Tensor

    def distances(self, maps: Tensor) -> Tensor:
        """(N, R) Euclidean distances of maps (N, H, W) over their largest values, each pixel over its standard
        deviation in the references; a pixel that never changes there is left out."""
        own, others = (flat / _largest(flat) for flat in (maps.flatten(1), self.maps.flatten(1)))
        spread = others.std(0, correction=0)
        scale = torch.where(spread > 0, 1.0 / spread, 0.0)
        return torch.cdist(own * scale, others * scale, compute_mode="donot_use_mm_for_euclid_dist")

    def nearest(self, maps: Tensor, ids: Tensor, count: int) -> Tensor:
        """(N, R) bool, the `count` references with the nearest maps; an example is not its own reference."""
        distances = self.distances(maps).masked_fill(ids[:, None] == self.ids, torch.inf)
        near = distances.topk(min(count, len(self.ids) - 1), dim=1, largest=False).indices
        return torch.zeros_like(distances, dtype=torch.bool).scatter_(1, near, True)


def sufficiency(similar: Tensor, predictions: Tensor, references: References) -> Tensor:
    """Among references with a similar map, the share where the net gives the same answer, NaN without any; (N,).

    Dasgupta, Frost, Moshkovitz, ICML 2022: how well a map tells what the net answers.

    Args:
        similar: (N, R) bool.
        predictions: (N,) the net's answers.
    """
    same = similar & (predictions[:, None] == references.answers)
    count = similar.sum(1)
    return torch.where(count > 0, same.sum(1) / count, torch.nan)


def _largest(rows: Tensor) -> Tensor:
    """(N, 1), each row's largest absolute value, by which squares neither vanish nor overflow; never 0."""
    return rows.abs().amax(1, keepdim=True).clamp(torch.finfo(torch.float32).tiny, 1e38)


def right_without(
    model: nn.Module, images: Tensor, labels: Tensor, removed: Tensor, *, noise: Tensor | float = 0.0
) -> Tensor:
    """Whether the net is right where pixels are imputed from their neighbours, plus `noise` (ROAD); (N,) bool.

    Args:
        removed: (N, H, W) bool.
        noise: (N, C, H, W), added to imputed pixels, which are then cut to [0, 1].
    """
    filled = torch.where(removed[:, None], (impute(images, removed) + noise).clamp(0.0, 1.0), images)
    with torch.no_grad():
        return answers(model(filled)) == labels


def extreme_pixels(maps: Tensor, example_ids: Tensor, shares: list[float]) -> list[tuple[Tensor, Tensor]]:
    """The most and the least important share of each map's pixels, (N, H, W) bool each; at least one pixel stays."""
    ranks = pixel_ranks(maps, example_ids)
    pixels = ranks.shape[1] * ranks.shape[2]
    counts = (min(pixels - 1, max(1, round(share * pixels))) for share in shares)
    return [(ranks < count, ranks >= pixels - count) for count in counts]
