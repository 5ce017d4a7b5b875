"""Random small nets out of a grammar, for tests of what must hold for every net.

`random_net(seed)` is a net of a few hundred parameters for 8x8 images of one or three channels and three classes; it
prints as one line, from its first operation to its last. `plain(net)` computes the same with everything written the
simple way: nothing in place, `flatten` in place of `view`, no operation that hides from whoever looks on. Of the
families `linear` and `homogeneous` the right answers are known exactly.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from bench.data import ImageDataset
from bench.nets.preparation import prepare_net
from tests.grammar_parts import ACTIVATIONS, FLATTENED, HIDDEN, WRITTEN, Attention, Chain, Layer, Part, Residual, Twice

SIZE, CLASSES = 8, 3
CHANNELS = {"grey": 1, "colour": 3}


class Net(nn.Module):
    """A net of the grammar: `kind` of images, family and one line that says what it computes."""

    def __init__(self, family: str, kind: str, size: int, body: Chain) -> None:
        super().__init__()
        self.family, self.kind, self.size, self.body = family, kind, size, body

    @property
    def channels(self) -> int:
        return CHANNELS[self.kind]

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.body(images)
        return result

    def __repr__(self) -> str:
        return f"{self.kind} {self.size}x{self.size} > {self.body.word}"


@dataclass(frozen=True)
class Family:
    """What a family of nets may have."""

    activations: tuple[str, ...] = (*ACTIVATIONS, *WRITTEN)
    norms: tuple[str, ...] = ("batch", "batch", "group", "layer")
    pools: tuple[str, ...] = ("max", "average")
    biases: tuple[bool, ...] = (True, False)
    flattened: tuple[str, ...] = tuple(FLATTENED)
    twists: tuple[str, ...] = ("residual", "twice", "attention", "weight_norm", "dropout")
    starts: tuple[str, ...] = ("as it is", "as it is", "normalised", "expanded", "of one")
    flaws: tuple[str, ...] = ()


FAMILIES = {
    "any": Family(),
    "hidden": Family(activations=(*HIDDEN, "relu"), twists=("residual",)),
    # a linear function of the pixels, and a bias
    "linear": Family(activations=(), norms=("batch",), pools=("average",), twists=("residual", "weight_norm", "dropout")),
    # of degree one in the pixels: the logit is input times gradient
    "homogeneous": Family(
        activations=("relu", "leaky_relu", "relu(inplace)", "x.relu_()", "F.relu_(x);", "leaky_relu(inplace)"),
        norms=(), biases=(False,), twists=("residual", "twice", "weight_norm"), starts=("as it is", "expanded", "of one"),
    ),
    # no group norms, which turn near the black image that integrated gradients start from
    "smooth": Family(
        activations=("softplus", "tanh", "gelu", "silu", "x.tanh_()"), norms=("batch",), pools=("average",)
    ),
    # ReLU modules, each used once, as captum's hooks need them
    "relu": Family(
        activations=("relu", "relu(inplace)", "x.relu_()", "F.relu_(x);"), norms=("batch",),
        twists=("residual", "dropout"), starts=("as it is", "normalised"),
    ),
    "random": Family(flaws=("dropout left on", "noise")),
    "batch": Family(flaws=("batch statistics", "batch mean")),
}  # fmt: skip


def random_net(
    seed: int, family: str = "any", kind: str | None = None, *, size: int = SIZE, blocks: int | None = None
) -> Net:
    """The net of that number, in eval mode, its parameters without gradient; higher numbers are not longer ones.

    Args:
        kind: `grey` or `colour`; by default every second seed.
        size: side of the images.
        blocks: convolutions after the first; by default 0 to 3.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        writer = _Writer(random.Random(f"{family} {seed}"), FAMILIES[family], size)
        kind = kind or tuple(CHANNELS)[seed % 2]
        net = Net(family, kind, size, writer.chain(CHANNELS[kind], seed // 2 % 4 if blocks is None else blocks))
        net.eval().requires_grad_(False)
        _calibrate(net)
    return net


def plain(net: Net) -> Net:
    """The same function of the images, written the simple way."""
    simple = copy.deepcopy(net)
    for module in simple.modules():
        if isinstance(module, Residual):
            module.sign = "+"
        elif isinstance(module, Chain):
            module.parts = nn.ModuleList(part.simple[0] if isinstance(part, Part) else part for part in module.parts)
    return simple


def prepared(net: Net) -> nn.Module:
    """A copy as runs use it: made ready for many gradients, where it can stand that."""
    ready = prepare_net(copy.deepcopy(net))
    try:
        like = next(net.parameters())
        ready(random_images(net.kind, 2).to(like).requires_grad_(True)).sum().backward()
    except (RuntimeError, ValueError):
        return net
    return ready


def random_images(kind: str, count: int, seed: int = 0, size: int = SIZE) -> Tensor:
    """(count, C, size, size) whole 255ths in [0, 1], some of them black or white."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(count, CHANNELS[kind], size, size, generator=generator)
    return ((drawn * 1.4 - 0.2).clamp(0.0, 1.0) * 255).round().div(255)


def data_for(net: nn.Module, kind: str, count: int, seed: int = 0) -> ImageDataset:
    """Images with the net's own answers as labels, but for every fifth."""
    images = random_images(kind, count, seed)
    with torch.no_grad():
        labels = net(images).argmax(1)
    labels[4::5] = (labels[4::5] + 1) % CLASSES
    return ImageDataset(
        kind, "test", (images * 255).round().to(torch.uint8), labels, class_names=("a", "b", "c"), source="made"
    )


def numbered(few: int, many: int) -> list[Any]:
    """Seeds for a parametrised test: so many in the default run, `many` in the slow one."""
    return [*range(few), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(few, many))]


class _Writer:
    """Draws the parts of one net."""

    def __init__(self, draw: random.Random, family: Family, size: int) -> None:
        self.draw, self.family, self.size = draw, family, size
        self.bias = draw.choice(family.biases)

    def chain(self, channels: int, blocks: int) -> Chain:
        start = self.draw.choice(self.family.starts)
        parts: list[nn.Module] = []
        if start == "normalised":
            parts.append(Part("(x - 0.4) / 0.3", lambda x: (x - 0.4) / 0.3))
        if start == "expanded" and channels == 1:
            parts.append(Part("expand(3)", lambda x: x.expand(-1, 3, -1, -1)))
            channels = 3
        width = self.draw.choice((4, 6))
        parts += [self.convolution(channels, width, of_one=start == "of one"), *self.after(width)]
        for number in range(blocks):
            parts += self.block(width)
            if number == blocks - 1 or self.draw.random() < 0.4:
                parts += self.pool()
        if self.family.flaws:
            parts.insert(self.draw.randrange(1, len(parts) + 1), self.flaw())
        return Chain(*parts, *self.head(width))

    def convolution(self, channels: int, width: int, *, of_one: bool = False) -> Layer:
        kernel = self.draw.choice((1, 3, 3, 3))
        stride = self.draw.choice((1, 1, 2)) if self.size >= SIZE and channels != width else 1
        module: nn.Module = nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=self.bias)
        nn.init.kaiming_normal_(module.weight)  # type: ignore[arg-type]
        self.size //= stride
        word = f"conv {channels}>{width} {kernel}x{kernel}" + (f"/{stride}" if stride > 1 else "")
        if self.draw.random() < 0.2 and "weight_norm" in self.family.twists:
            module, word = parametrizations.weight_norm(module), f"weight_norm {word}"
        return Layer(word + ("" if self.bias else " no bias") + (" of one" if of_one else ""), module, of_one=of_one)

    def after(self, width: int) -> list[nn.Module]:
        """What follows a convolution: a norm perhaps, and an activation."""
        parts: list[nn.Module] = []
        if self.family.norms and self.draw.random() < 0.4:
            parts.append(self.norm(width))
        if self.family.activations:
            parts.append(self.activation())
        return parts

    def activation(self) -> Part:
        word = self.draw.choice(self.family.activations)
        if word in ACTIVATIONS:
            return Part(word, ACTIVATIONS[word])
        usual, function = {**WRITTEN, **HIDDEN}[word]
        return Part(word, function, Part(usual, ACTIVATIONS[usual]))

    def norm(self, width: int) -> Layer:
        kind = self.draw.choice(self.family.norms)
        if kind != "batch":
            groups = 2 if kind == "group" else 1
            return Layer(f"{kind} norm", nn.GroupNorm(groups, width))
        norm = nn.BatchNorm2d(width)
        nn.init.normal_(norm.running_mean, 0.0, 0.1)  # type: ignore[arg-type]
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0.0, 0.1)
        return Layer("batch norm", norm)

    def block(self, width: int) -> list[nn.Module]:
        twist = self.draw.choice((*self.family.twists, "none"))
        if twist == "attention":
            return [Attention(width, fused=self.draw.random() < 0.5)]
        body = Chain(self.convolution(width, width), *self.after(width))
        if twist == "residual":
            if self.draw.random() < 0.5:
                return [Residual(body, "+")]
            # as ResNets write it: into what the convolution or its norm has given, and the activation last
            cut = len(body.parts) - bool(self.family.activations)
            return [Residual(Chain(*body.parts[:cut]), "+="), *body.parts[cut:]]
        if twist == "twice":
            return [Twice(body)]
        if twist == "dropout":
            body.parts.append(Layer("dropout", nn.Dropout(0.5)))
        return list(body.parts)

    def pool(self) -> list[nn.Module]:
        if self.size < 4 or not self.family.pools:
            return []
        self.size //= 2
        if self.draw.choice(self.family.pools) == "max":
            return [Layer("max pool", nn.MaxPool2d(2))]
        return [Part("average pool", lambda x: F.avg_pool2d(x, 2))]

    def flaw(self) -> Part:
        flaws: dict[str, Callable[[Tensor], Tensor]] = {
            "dropout left on": lambda x: F.dropout(x, 0.1),
            "noise": lambda x: x + 0.1 * torch.randn_like(x),
            "batch statistics": lambda x: F.batch_norm(x, None, None, training=True),
            "batch mean": lambda x: x - x.mean(0, keepdim=True),
        }
        word = self.draw.choice(self.family.flaws)
        return Part(word, flaws[word])

    def head(self, width: int) -> list[nn.Module]:
        inputs, parts = width * self.size**2, []
        if self.draw.random() < 0.25:
            parts.append(Part("mean", lambda x: x.mean((2, 3))))
            inputs = width
        else:
            word = self.draw.choice(self.family.flattened)
            parts.append(Part(word, FLATTENED[word], Part("flatten", FLATTENED["flatten"])))
        return [
            *parts,
            Layer(f"linear {inputs}>{CLASSES}", nn.Linear(inputs, CLASSES, bias=True in self.family.biases)),
        ]


def _calibrate(net: Net) -> None:
    """Logits of a spread of about one; where there are biases, no class that has all the images."""
    last = net.body.parts[-1].module
    logits = net(random_images(net.kind, 64, 1, net.size))
    scale = 1.0 / float((logits - logits.mean(0)).std().clamp_min(1e-4))
    last.weight *= scale
    if last.bias is not None:
        last.bias.copy_((last.bias - logits.mean(0)) * scale)


class Scaled(nn.Module):
    """A net whose logits are multiplied by `factor`, after `shift` has been added."""

    def __init__(self, net: nn.Module, factor: float, shift: float = 0.0) -> None:
        super().__init__()
        self.net, self.factor, self.shift = net, factor, shift

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = (self.net(images) + self.shift) * self.factor
        return result


class NanNear(nn.Module):
    """A net that answers `answer` in every class on images other than whole 255ths."""

    def __init__(self, net: nn.Module, answer: float = torch.nan) -> None:
        super().__init__()
        self.net, self.answer = net, answer

    def forward(self, images: Tensor) -> Tensor:
        logits = self.net(images)
        off = (images * 255 - (images * 255).round()).abs().flatten(1).amax(1) > 1e-3
        return torch.where(off[:, None], torch.full_like(logits, self.answer), logits)
