"""Training small nets from scratch on masked images, many side by side: what ROAR and KAR repeat hundreds of times.

Nets always start from fresh weights. A warm start would measure how well an already trained net copes with masks, not
what can still be learnt from the pixels that are left, which is what ROAR asks (Hooker et al. 2019; Bridging, section
6, pitfall 7).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.errors import BenchError
from bench.core.keyed_random import stream_key
from bench.nets import build_net
from bench.nets.layers import Normalization
from bench.nets.stacked_nets import Cells, StackedNets

_TEST_BATCH = 250


@dataclass(frozen=True, slots=True)
class Mask:
    """Which ranks a net may see: those from `first_kept` up to, not with, `last_kept`; one end is that of the image."""

    first_kept: int
    last_kept: int


@dataclass(frozen=True, slots=True)
class RetrainSchedule:
    """How every net is trained; Adam, without augmentation.

    Attributes:
        decay: linear warm-up over a fifth of the steps, then half a cosine to 0; else a constant rate (the paper).
        precision: of products and activations; weights and optimiser are in float32.
    """

    architecture: str
    architecture_parameters: dict[str, Any]
    epochs: int
    batch_size: int
    learning_rate: float
    decay: bool
    precision: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True, slots=True)
class MaskedImages:
    """Images with the ranks of their pixels.

    Attributes:
        images: (N, C, H, W) uint8.
        ranks: (N, H, W), 0 for the most important pixel.
        labels: (N,).
        fill: (C,) in [0, 1], what takes the place of a masked pixel.
        shapes_only: every pixel that is kept is white, so that nothing but the mask's shape is left (the leakage
            control).
    """

    images: Tensor
    ranks: Tensor
    labels: Tensor
    fill: Tensor
    shapes_only: bool = False


class UnderWay(Protocol):
    """Keeps nets that are being trained, so that a stop loses little."""

    def restore(self, parts: Mapping[str, Any]) -> int:
        """Put the parts, which have state_dict and load_state_dict, where they were; returns after how many steps."""

    def keep(self, parts: Mapping[str, Any], steps: int) -> None:
        """Called after each step."""


def retrain(
    masks: Sequence[Mask],
    seeds: Sequence[int],
    schedule: RetrainSchedule,
    training: MaskedImages,
    test: MaskedImages,
    *,
    device: torch.device,
    on_step: Callable[[int], None] = lambda _: None,
    under_way: UnderWay | None = None,
) -> Tensor:
    """Train a net from scratch for every seed and mask; which masked test images each then gets right.

    The nets of one seed have the same initial weights and the same order of examples, also of different pixels, so that
    two masks are compared in pairs. `on_step` is called with the number of nets after each step.
    `under_way` keeps them between steps, and where it has kept some, they go on from there, to the very same nets.

    Returns:
        (number of seeds, number of masks, number of test images) bool, on the CPU.
    """
    built = [fresh_net(schedule, seed) for seed in seeds]
    dtype = torch.bfloat16 if schedule.precision == "bfloat16" else torch.float32
    side = training.images.shape[-1]
    model = StackedNets([net for net in built for _ in masks], side, dtype).to(device)
    see, see_test = (_View(data, masks, built[0], model.cells, device=device) for data in (training, test))
    optimizer = torch.optim.Adam(model.parameters(), lr=schedule.learning_rate, fused=True)
    count = len(training.labels)
    steps = math.ceil(count / schedule.batch_size)
    parts = {"nets": model, "optimizer": optimizer}
    done = under_way.restore(parts) if under_way is not None else 0
    on_step(done * model.count)
    for epoch in range(done // steps, schedule.epochs):
        orders = torch.stack([example_order(seed, epoch, count) for seed in seeds]).to(device)
        for step in range(max(0, done - epoch * steps), steps):
            chosen = orders[:, step * schedule.batch_size : (step + 1) * schedule.batch_size]
            optimizer.param_groups[0]["lr"] = learning_rate(schedule, epoch * steps + step, schedule.epochs * steps)
            logits = model(see.images(chosen))
            labels = see.labels[chosen].repeat_interleave(len(masks), 0)
            # the sum over nets of each net's mean loss: every net gets the gradient that it would have alone
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / labels.shape[1]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            on_step(model.count)
            if under_way is not None:
                under_way.keep(parts, epoch * steps + step + 1)
    right = []
    with torch.no_grad():
        for chosen in torch.split(torch.arange(len(test.labels), device=device), _TEST_BATCH):
            logits = model(see_test.images(chosen.expand(len(seeds), -1)))
            right.append(logits.argmax(2) == see_test.labels[chosen])
    return torch.cat(right, 1).cpu().view(len(seeds), len(masks), -1)


class _View:
    """A split as the nets see it: masked batches for all seeds and masks at once, without slow comparisons."""

    def __init__(
        self, data: MaskedImages, masks: Sequence[Mask], net: nn.Module, cells: Cells, device: torch.device
    ) -> None:
        pixels = data.ranks.shape[1] * data.ranks.shape[2]
        mean, std = (value.detach().view(1, -1, 1, 1) for value in normalisation(net))
        fill = data.fill.view(1, -1, 1, 1)
        inside = torch.ones((1, *data.images.shape[1:]))
        channels = inside.to(data.ranks.dtype)
        self.shapes_only = data.shapes_only
        self.pixels = cells.lay_out(data.images).to(device)
        self.ranks = cells.lay_out(data.ranks[:, None] * channels).to(device)
        self.labels = data.labels.to(device)
        # (x - fill) / std of a pixel that is kept, 0 of one that is not, plus what the fill is in the net's units
        self.scale = cells.lay_out(inside / (255.0 * std)).to(device)
        self.shift = cells.lay_out(inside * (-fill / std)).to(device)
        self.white = cells.lay_out(inside * ((1.0 - fill) / std)).to(device)
        self.offset = cells.lay_out(inside * ((fill - mean) / std)).to(device)
        signs, shifts = zip(*(_linear_mask(mask, pixels) for mask in masks), strict=True)
        shape = (1, len(masks), 1, *([1] * (self.pixels.dim() - 1)))
        self.signs = torch.tensor(signs, device=device).view(shape)
        self.shifts = torch.tensor(shifts, device=device).view(shape)

    def images(self, chosen: Tensor) -> Tensor:
        """Normalised masked images (seeds * masks, n, ...) of the examples `chosen` (seeds, n)."""
        seeds, count = chosen.shape
        flat = chosen.reshape(-1)
        places = self.ranks[flat].to(torch.float32).view(seeds, 1, count, *self.ranks.shape[1:])
        if self.shapes_only:
            images = self.white.expand_as(places)
        else:
            images = torch.addcmul(self.shift, self.pixels[flat].to(torch.float32), self.scale).view_as(places)
        kept = torch.addcmul(self.shifts, self.signs, places).clamp_(0.0, 1.0)
        return kept.mul_(images).add_(self.offset).flatten(0, 1)


def _linear_mask(mask: Mask, pixels: int) -> tuple[float, float]:
    """Sign and shift with which sign * rank + shift is at least 1 where a pixel is kept, at most 0 where it is not."""
    if mask.last_kept == pixels:
        return 1.0, 1.0 - mask.first_kept
    if mask.first_kept == 0:
        return -1.0, float(mask.last_kept)
    raise ValueError("a mask keeps the pixels from a rank on, or those up to a rank")


def fresh_net(schedule: RetrainSchedule, seed: int) -> nn.Module:
    """The untrained net of a seed."""
    torch.manual_seed(stream_key("retrain/init", seed) & ((1 << 63) - 1))
    return build_net(schedule.architecture, schedule.architecture_parameters)


def normalisation(net: nn.Module) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a net's first layer."""
    first = next(iter(net.children()))
    if not isinstance(first, Normalization):
        raise BenchError("a net to be retrained must begin with its normalisation, as the registered ones do.")
    return first.mean, first.std


def example_order(seed: int, epoch: int, count: int) -> Tensor:
    """The order of examples of a seed in an epoch."""
    generator = torch.Generator().manual_seed(stream_key("retrain/order", seed, epoch) & ((1 << 63) - 1))
    return torch.randperm(count, generator=generator)


def learning_rate(schedule: RetrainSchedule, step: int, steps: int) -> float:
    """The rate of a step: linear warm-up over a fifth of them, then half a cosine; or constant."""
    if not schedule.decay:
        return schedule.learning_rate
    done = step / steps
    factor = done / 0.2 + 0.01 if done < 0.2 else 0.5 * (1.0 + math.cos(math.pi * (done - 0.2) / 0.8))
    return schedule.learning_rate * min(1.0, factor)
