"""Square: random search over square windows of the image, by the scores of the net alone.

Source: Andriushchenko, Croce, Flammarion and Hein, "Square Attack", ECCV 2020; in L1 as AutoAttack has it (Croce and
Hein, ICML 2021). Starts, windows, their schedule and the margin that decides are those of the papers. What is ours:
broken examples leave, only what a query changes is computed, and random numbers are keyed by example. Here are the
schedule and the searches of L2 and L1; that of L-inf is in bench.attacks.square.corners.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from bench.attacks.losses import advantage
from bench.attacks.norms import distance, per_example
from bench.attacks.projections import project_l1_box
from bench.attacks.registry import AttackResult, register_attack
from bench.attacks.square.corners import CHECK_EVERY, CornerSearch
from bench.attacks.square.early_stopping import EarlyStopping
from bench.core.bounds import Queries
from bench.core.keyed_random import keyed_uniform
from bench.core.threat import Norm

FIRST_SHARE = 0.8
"""The first windows' share of the image's area."""
HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries after which the share is halved, for any number of queries, as AutoAttack has it."""
LARGE = 50
"""After so many queries windows are small enough to leave most of a good start as it is."""

_BLOCK = 256
_TINY = 1e-12


@register_attack("square")
def square(
    model: nn.Module, images: Tensor, labels: Tensor, *, norm: Norm, eps: Tensor, ids: Tensor, seed: int = 0,
    batch_size: int = 256, queries: Queries = 5000, patient: bool = False,
) -> AttackResult:  # fmt: skip
    """Search for misclassified images within `eps` by random changes that lower the true class's margin.

    Args:
        patient: spend all queries on what stands, also where they cannot do; see bench.attacks.square.early_stopping.

    Returns:
        the best images found, broken or not.
    """
    best = []
    with torch.no_grad():
        for part in torch.split(torch.arange(len(images), device=images.device), batch_size):
            clean, truth, numbers, radius = images[part], labels[part], ids[part], eps[part]
            search: CornerSearch | _WindowSearch
            if norm == "linf":
                sides = [window_side(query, clean, 1) for query in range(queries)]
                search = CornerSearch(
                    model, clean, truth, numbers, eps=radius, sides=sides, seed=seed, batch_size=batch_size,
                    patient=patient,
                )  # fmt: skip
            else:
                search = _WindowSearch(
                    model, clean, truth, numbers, norm=norm, eps=radius, queries=queries, seed=seed, patient=patient
                )
            best.append(search.run())
    return AttackResult(torch.cat(best) if best else images.clone())


def walk(
    model: nn.Module, images: Tensor, labels: Tensor, begin: Tensor, *, eps: Tensor, ids: Tensor, seed: int,
    batch_size: int, queries: int,
) -> tuple[Tensor, int]:  # fmt: skip
    """Square in L-inf from the corners nearest to `begin` (N, C, H, W), without its first and largest windows.

    Args:
        images: (N, C, H, W) the middles of the balls.

    Returns:
        (N, C, H, W) the best images found, broken or not, and how many the net was shown.
    """
    sides = [window_side(LARGE + query, images, 1) for query in range(queries)]
    search = CornerSearch(
        model, images, labels, ids, eps=eps, sides=sides, seed=seed, batch_size=batch_size, patient=True, begin=begin
    )
    with torch.no_grad():
        return search.run(), search.asked


def window_side(query: int, images: Tensor, least: int) -> int:
    """The window's side at a query (0 is the first after the start)."""
    height, width = images.shape[-2:]
    share = FIRST_SHARE / 2 ** sum(query > last for last in HALVED_AFTER)
    side = max(round(math.sqrt(share * height * width)), least)
    if least > 1 and side % 2 == 0:
        side += 1
    return min(side, height, width)


@dataclass
class _WindowSearch:
    """L2 and L1: perturbation is moved from one window into another. Windows are the same for all examples."""

    model: nn.Module
    clean: Tensor
    labels: Tensor
    ids: Tensor
    norm: Norm
    eps: Tensor
    queries: int
    seed: int
    patient: bool

    def run(self) -> Tensor:
        self.places = torch.arange(len(self.clean), device=self.clean.device)
        candidate = self._feasible(self._start())
        self.found = candidate.clone()
        self.delta = candidate - self.clean
        self.margin = advantage(self.model(candidate), self.labels)
        self.improved = torch.zeros_like(self.labels)
        self.prospects = None if self.patient else EarlyStopping.start(self.margin, self.queries)
        for query, (numbers, signs) in enumerate(self._draws()):
            if query % CHECK_EVERY == 0 and not self._drop_done(query):
                return self.found
            candidate = self._feasible(self._proposal(query, numbers, signs[self.places]))
            self._take_better(candidate, advantage(self.model(candidate), self.labels))
        self.found[self.places] = self.clean + self.delta
        return self.found

    def _take_better(self, candidate: Tensor, margin: Tensor) -> None:
        # a broken example is not touched until it leaves
        better = ((margin < self.margin) | (margin <= 0)) & (self.margin > 0)
        if better.device.type == "cpu" and not bool(better.any()):
            return
        self.improved += better
        self.margin = torch.where(better, margin, self.margin)
        self.delta = torch.where(per_example(better, candidate), candidate.sub_(self.clean), self.delta)

    def _draws(self) -> Iterator[tuple[list[float], Tensor]]:
        """Per query: five uniform numbers that all examples share, and each example's signs (N, C, 1, 1)."""
        ids, channels = self.ids, self.clean.shape[1]
        shared = torch.zeros(1, dtype=torch.int64)
        for begin in range(0, self.queries, _BLOCK):
            count = min(_BLOCK, self.queries - begin)
            (numbers,) = keyed_uniform(self.seed, f"square/{self.norm}", shared, (count, 5), extra=shared + begin)
            key = torch.full_like(ids, begin)
            uniform = keyed_uniform(self.seed, f"square/{self.norm}/signs", ids, (count, channels, 1, 1), extra=key)
            signs = (uniform < 0.5).to(self.clean.dtype).mul_(2.0).sub_(1.0)
            yield from zip(numbers.tolist(), signs.unbind(1), strict=True)

    def _drop_done(self, query: int) -> bool:
        """Let what is broken or given up go; returns whether anything is left."""
        kept = self.margin > 0
        if self.prospects is not None:
            self.prospects.note(torch.full_like(self.labels, query), self.margin, self.improved)
            kept &= ~self.prospects.should_stop()
        if not bool(kept.all()):
            self.found[self.places] = self.clean + self.delta
            self.places, self.clean, self.labels = self.places[kept], self.clean[kept], self.labels[kept]
            self.eps = self.eps[kept]
            self.delta, self.margin, self.improved = self.delta[kept], self.margin[kept], self.improved[kept]
            if self.prospects is not None:
                self.prospects.keep(kept)
        return bool(len(self.places))

    def _start(self) -> Tensor:
        """Tiles of a fifth of the height all over the image, cut at its edge; signs per tile, channel and example."""
        delta = torch.zeros_like(self.clean)
        height, width = self.clean.shape[-2:]
        side = max(height // 5, 1)
        first, down, across = max(height - 5 * side, 0) // 2, height // side, max(width // side, 1)
        shape = (down * across, self.clean.shape[1], 1, 1)
        signs = keyed_uniform(self.seed, f"square/{self.norm}/start", self.ids, shape).sub_(0.5).sign_()
        shared = torch.zeros(1, dtype=torch.int64)
        turned = keyed_uniform(self.seed, f"square/{self.norm}/tiles", shared, (down * across,))[0].tolist()
        for number in range(down * across):
            top, left = first + number // across * side, first + number % across * side
            tile = delta[..., top : top + side, left : left + side]
            pattern = self._pattern(side, turned=turned[number] > 0.5)
            tile += pattern[: tile.shape[-2], : tile.shape[-1]] * signs[:, number]
        return delta

    def _pattern(self, side: int, *, turned: bool) -> Tensor:
        pattern = window_pattern(side, self.norm, self.clean.device)
        return pattern.T if turned else pattern

    def _length(self, values: Tensor) -> Tensor:
        """The norm over the last two dimensions, which are kept."""
        order = 2 if self.norm == "l2" else 1
        length: Tensor = torch.linalg.vector_norm(values, ord=order, dim=(-2, -1), keepdim=True)
        return length

    def _proposal(self, query: int, numbers: list[float], signs: Tensor) -> Tensor:
        """The perturbation with the second window emptied and its budget, and what is free, put into the first."""
        height, width = self.clean.shape[-2:]
        side = window_side(query, self.clean, 3)
        top, left, top_2, left_2 = (
            int(number * (extent - side)) for number, extent in zip(numbers, (height, width) * 2, strict=False)
        )
        delta = self.delta.clone()
        first = delta[..., top : top + side, left : left + side]
        second = delta[..., top_2 : top_2 + side, left_2 : left_2 + side]
        old = first.clone()
        old_length = self._length(old)
        length = distance(delta, self.norm)
        whole, spent = (self.eps**2, length.square()) if self.norm == "l2" else (self.eps, length)
        free = per_example((whole.to(delta.dtype) - spent).clamp_min_(0.0), delta)  # what the perturbation leaves
        second.zero_()
        kept = self._length(first)  # what lies outside of the second window
        within = self.delta[..., top_2 : top_2 + side, left_2 : left_2 + side]
        new = old.div_(old_length + _TINY).add_(self._pattern(side, turned=numbers[4] > 0.5) * signs)
        if self.norm == "l2":
            budget = (free / delta.shape[1] + kept.square_() + self._length(within).square_()).sqrt_()
        else:
            budget = (free / delta.shape[1] + kept + self._length(within)).mul_(delta.shape[1])
        first.copy_(new.mul_(budget / (self._length(new) + _TINY)))
        return delta

    def _feasible(self, delta: Tensor) -> Tensor:
        """The image that a perturbation leads to, in the ball and in [0, 1]; overwrites the perturbation."""
        if self.norm == "l2":
            scale = self.eps.to(delta.dtype) * (distance(delta, "l2") + _TINY).reciprocal_()
            return delta.mul_(per_example(scale, delta)).add_(self.clean).clamp_(0.0, 1.0)
        radius = self.eps * (1.0 - 1e-6)
        return project_l1_box(delta, self.clean, radius.to(delta.dtype)).add_(self.clean)


@lru_cache
def window_pattern(side: int, norm: Norm, device: torch.device) -> Tensor:
    """(side, side) two humps of opposite sign, one above the other, of length 1 in the norm; float32."""
    upper = side // 2
    pattern = torch.cat([_hump(upper, side, norm), -_hump(side - upper, side, norm)])
    length: Tensor = torch.linalg.vector_norm(pattern, ord=2 if norm == "l2" else 1)
    return (pattern / length).to(device)


def _hump(height: int, width: int, norm: Norm) -> Tensor:
    """Nested rectangles around the centre, each with less weight than the one inside it; of length 1."""
    hump = torch.zeros(height, width)
    row, column = height // 2, width // 2
    for ring in range(max(row, column) + 1):
        top, left = row - ring, column - ring
        weight = 1.0 / (ring + 1) ** (2 if norm == "l2" else 4)
        hump[max(top, 0) : max(top + 2 * ring + 1, 0), max(left, 0) : max(left + 2 * ring + 1, 0)] += weight
    length: Tensor = torch.linalg.vector_norm(hump, ord=2 if norm == "l2" else 1)
    return hump / length.clamp_min(1e-30)
