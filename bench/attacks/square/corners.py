"""Square in L-inf, on the corners of the ball: each channel of each pixel is either as dark or as bright as may be.

Source: see bench.attacks.square.attack. Every example walks through its own proposals (window, sign per channel) at
its own pace, and the net sees no image of an example twice: a proposal that changes nothing, or leads to corners that
were rejected before, is rejected without asking. Where few examples are left, several proposals of one example are
tried at once, as if each were the next: the first that is taken makes the later ones void. The outcome is that of the
search one proposal at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.attacks.losses import advantage
from bench.attacks.norms import per_example
from bench.attacks.square.early_stopping import EarlyStopping
from bench.core.keyed_random import keyed_uniform

CHECK_EVERY = 16
"""Steps, or queries, between two looks at what is done, each of which waits for the device."""
_AHEAD = 8
"""Proposals looked at for each that is put before the net."""
_FULL_BATCH = 48
"""Images with which a CPU works at its full speed."""
_MOST_AT_ONCE = 16
_TAKEN_AT_MOST = 0.2
"""So many of the proposals tried at once may be expected to be taken, which makes the later ones' work idle."""
_SLOTS = 1 << 13


@dataclass
class CornerSearch:
    """The search for one batch of examples.

    Attributes:
        sides: the window's side at each query.
        batch_size: the most images that the net gets at once.
        patient: never give up.
        begin: (N, C, H, W) images in the ball, at whose nearest corners the search begins; None for stripes.
        asked: how many images the net has been shown.
        improved: (N,) how many proposals have been taken.
    """

    model: nn.Module
    clean: Tensor
    labels: Tensor
    ids: Tensor
    eps: Tensor
    sides: list[int]
    seed: int
    batch_size: int
    patient: bool
    begin: Tensor | None = None
    asked: int = 0

    def run(self) -> Tensor:
        """(N, C, H, W) the best images found."""
        count, channels, _, width = self.clean.shape
        self.places = torch.arange(count, device=self.clean.device)
        radius = per_example(self.eps.to(self.clean.dtype), self.clean)
        self.low, self.high = (self.clean - radius).clamp_(min=0.0), (self.clean + radius).clamp_(max=1.0)
        if self.begin is None:
            bright = keyed_uniform(self.seed, "square/linf/start", self.ids, (channels, 1, width)) < 0.5
        else:
            bright = self.begin > self.clean
        self.best = torch.where(bright, self.high, self.low)
        self.margin = self._margins(self.best[:, None]).squeeze(1)
        self.query, self.improved = torch.zeros_like(self.labels), torch.zeros_like(self.labels)
        self.prospects = None if self.patient else EarlyStopping.start(self.margin, len(self.sides))
        self.found = self.best.clone()
        self.proposals = _Windows.draw(self.seed, self.ids, self.sides, self.clean)
        # worth its work where the net is slow beside it and proposals repeat
        worth = self.clean.device.type == "cpu" and self.clean[0, 0].numel() << channels <= 4 * len(self.sides)
        self.seen = _SeenCorners.start(self.best, self.high) if worth else None
        at_once = 1
        while len(self.places):
            before = int(self.improved.sum())
            for _ in range(CHECK_EVERY):
                self._step(at_once)
            at_once = self._at_once((int(self.improved.sum()) - before) / (CHECK_EVERY * len(self.places)))
            self._drop_done()
        return self.found

    def _step(self, at_once: int) -> None:
        """Put each example's next `at_once` proposals before the net and take the first that is better."""
        ahead = at_once if self.seen is None else at_once * _AHEAD
        numbers = self.query[:, None] + torch.arange(ahead, device=self.query.device)
        window = self.proposals.pick(numbers)
        worthy, keys = numbers < len(self.sides), numbers
        if self.seen is not None:
            keys = self.seen.keys(window)
            worthy = worthy & self.seen.unknown(keys)
        # the first that are worthy, in their order
        order = torch.arange(ahead, 0, -1, device=worthy.device)
        rank, chosen = (worthy * order).topk(at_once, dim=1)
        tried, window = rank > 0, window.pick(chosen)
        candidates = window.paint(self.best, self.low, self.high)
        margins = self._margins(candidates)
        old = self.margin[:, None]
        better = ((margins < old) | (margins <= 0)) & tried & (old > 0)
        first = better.to(torch.uint8).argmax(1, keepdim=True)
        taken = better.any(1)
        self.margin = torch.where(taken, margins.gather(1, first).squeeze(1), self.margin)
        rows = torch.arange(len(first), device=first.device)
        self.best = torch.where(taken.view(-1, 1, 1, 1), candidates[rows, first.squeeze(1)], self.best)
        last = torch.where(tried.all(1), chosen[:, -1] + 1, ahead)
        self.query = self.query + torch.where(taken, chosen.gather(1, first).squeeze(1) + 1, last)
        self.improved += taken
        if self.seen is not None:
            # a candidate no better than the new best will never be taken
            self.seen.remember(keys.gather(1, chosen), tried & (margins >= self.margin[:, None]))
            self.seen.move(taken.nonzero().squeeze(1), self.best, self.high)

    def _margins(self, candidates: Tensor) -> Tensor:
        """(N, K) z_y minus the largest other logit, for (N, K, C, H, W) images; zero or less is broken."""
        flat = candidates.flatten(0, 1)
        self.asked += len(flat)
        logits = torch.cat([self.model(part) for part in torch.split(flat, self.batch_size)])
        return advantage(logits, self.labels.repeat_interleave(candidates.shape[1])).view(candidates.shape[:2])

    def _drop_done(self) -> None:
        """Let those go that are broken, have no queries left or are given up."""
        kept = (self.margin > 0) & (self.query < len(self.sides))
        if self.prospects is not None:
            self.prospects.note(self.query, self.margin, self.improved)
            kept &= ~self.prospects.should_stop()
        if bool(kept.all()):
            return
        self.found[self.places] = self.best
        self.places, self.clean, self.labels = self.places[kept], self.clean[kept], self.labels[kept]
        self.best, self.low, self.high = self.best[kept], self.low[kept], self.high[kept]
        self.margin, self.query, self.improved = self.margin[kept], self.query[kept], self.improved[kept]
        for memory in (self.proposals, self.seen, self.prospects):
            if memory is not None:
                memory.keep(kept)

    def _at_once(self, rate: float) -> int:
        """How many proposals to try at once, by how many examples are left and the rate at which steps take one."""
        full = _FULL_BATCH if self.clean.device.type == "cpu" else self.batch_size
        room = min(full, self.batch_size) // max(1, len(self.places))
        return max(1, min(room, _MOST_AT_ONCE, int(_TAKEN_AT_MOST / max(rate, 1e-3))))


@dataclass(slots=True)
class _Windows:
    """Proposals (N, K): corners and sides of the windows, and whether each channel (N, K, C) becomes bright."""

    top: Tensor
    left: Tensor
    side: Tensor
    bright: Tensor

    @classmethod
    def draw(cls, seed: int, ids: Tensor, sides: list[int], images: Tensor) -> _Windows:
        """All proposals of all examples, (N, queries)."""
        channels, height, width = images.shape[1:]
        side = torch.tensor(sides, dtype=torch.int64, device=images.device)
        uniform = keyed_uniform(seed, "square/linf", ids, (2 + channels, len(sides)))
        top, left = (uniform[:, 0] * (height - side)).long(), (uniform[:, 1] * (width - side)).long()
        return cls(top, left, side.expand_as(top), (uniform[:, 2:] < 0.5).transpose(1, 2).contiguous())

    def keep(self, kept: Tensor) -> None:
        self.top, self.left, self.bright = self.top[kept], self.left[kept], self.bright[kept]
        self.side = self.side[:1].expand_as(self.top)  # the same of all examples

    def pick(self, chosen: Tensor) -> _Windows:
        """Those of these numbers (N, k); past the last one, the last."""
        chosen = chosen.clamp_max(self.top.shape[1] - 1)
        channels = chosen[..., None].expand(-1, -1, self.bright.shape[2])
        top, left, side = (values.gather(1, chosen) for values in (self.top, self.left, self.side))
        return _Windows(top, left, side, self.bright.gather(1, channels))

    def paint(self, images: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """(N, K, C, H, W) the images with each of the windows painted."""
        height, width = images.shape[-2:]
        rows = torch.arange(height, device=images.device) - self.top[..., None]
        columns = torch.arange(width, device=images.device) - self.left[..., None]
        within_rows = (rows >= 0) & (rows < self.side[..., None])
        within_columns = (columns >= 0) & (columns < self.side[..., None])
        inside = (within_rows[..., None] & within_columns[..., None, :])[:, :, None]
        colour = torch.where(self.bright[..., None, None], high[:, None], low[:, None])
        return torch.where(inside, colour, images[:, None])


@dataclass(slots=True)
class _SeenCorners:
    """Which corners of its ball each example has been rejected at, by keys of 64 bits.

    A corner's key is the sum, with overflow, of random numbers of its bright pixels (Zobrist 1970); sums over windows
    come from summed-area tables. A key is kept until another takes its slot: what is forgotten is merely asked again.
    """

    codes: Tensor
    areas: Tensor
    bright_areas: Tensor
    states: Tensor
    table: Tensor

    @classmethod
    def start(cls, best: Tensor, high: Tensor) -> _SeenCorners:
        generator = torch.Generator().manual_seed(0)
        least, most = torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max
        codes = torch.randint(least, most, best.shape[1:], generator=generator)
        count, channels, height, width = best.shape
        seen = cls(
            codes, _areas(codes[None]), codes.new_zeros(count, channels * (height + 1) * (width + 1)),
            codes.new_zeros(count), table=codes.new_zeros(count, _SLOTS + 1),
        )  # fmt: skip
        seen.move(torch.arange(count), best, high)
        return seen

    def move(self, examples: Tensor, best: Tensor, high: Tensor) -> None:
        """These examples have a new best corner."""
        bright = (best[examples] == high[examples]) * self.codes
        self.bright_areas[examples] = _areas(bright)
        self.states[examples] = bright.flatten(1).sum(1)

    def keys(self, window: _Windows) -> Tensor:
        """(N, K) the keys of the corners that the proposals lead to."""
        _, height, width = self.codes.shape
        row = width + 1
        begin, end = window.top * row, (window.top + window.side) * row
        right = window.left + window.side
        keys = self.states[:, None]
        for channel in range(len(self.codes)):
            places = [
                place + channel * (height + 1) * row
                for place in (end + right, begin + window.left, begin + right, end + window.left)
            ]
            bright, whole = _window_sum(self.bright_areas, places), _window_sum(self.areas, places)
            keys = keys - bright + whole * window.bright[..., channel]
        return keys

    def unknown(self, keys: Tensor) -> Tensor:
        """(N, K) bool: neither the best corner nor one that was rejected."""
        return (keys != self.states[:, None]) & (self.table.gather(1, keys & (_SLOTS - 1)) != keys)

    def remember(self, keys: Tensor, rejected: Tensor) -> None:
        self.table.scatter_(1, torch.where(rejected, keys & (_SLOTS - 1), _SLOTS), keys)

    def keep(self, kept: Tensor) -> None:
        self.bright_areas, self.states, self.table = self.bright_areas[kept], self.states[kept], self.table[kept]


def _areas(values: Tensor) -> Tensor:
    """Summed-area tables of (N, C, H, W), with a row and a column of zeros in front; (N, C * (H + 1) * (W + 1))."""
    count, channels, height, width = values.shape
    areas = values.new_zeros(count, channels, height + 1, width + 1)
    areas[..., 1:, 1:] = values.cumsum(-1).cumsum(-2)
    return areas.flatten(1)


def _window_sum(areas: Tensor, places: list[Tensor]) -> Tensor:
    """(N, K) sums over windows from the tables at their four corners (N, K)."""
    areas = areas.expand(len(places[0]), -1)
    lower, upper, right, left = (areas.gather(1, place) for place in places)
    return lower + upper - right - left
