"""What the nets of tests.grammar are put together from: parts that print as a word, each written in several ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Swish(torch.autograd.Function):
    """SiLU as memory-efficient nets write it: an operation that only autograd's graph shows."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values * torch.sigmoid(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (values,) = ctx.saved_tensors
        share = torch.sigmoid(values)
        return gradient * share * (1 + values * (1 - share))


def _as_statement(values: Tensor) -> Tensor:
    F.relu_(values)
    return values


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu, "leaky_relu": F.leaky_relu, "softplus": F.softplus, "elu": F.elu, "tanh": torch.tanh,
    "gelu": F.gelu, "silu": F.silu,
}  # fmt: skip
WRITTEN: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "relu(inplace)": ("relu", lambda x: F.relu(x, inplace=True)),
    "x.relu_()": ("relu", lambda x: x.relu_()),
    "F.relu_(x);": ("relu", _as_statement),
    "x.relu()": ("relu", lambda x: x.relu()),
    "leaky_relu(inplace)": ("leaky_relu", lambda x: F.leaky_relu(x, inplace=True)),
    "elu(inplace)": ("elu", lambda x: F.elu(x, inplace=True)),
    "x.tanh_()": ("tanh", lambda x: x.tanh_()),
    "silu(inplace)": ("silu", lambda x: F.silu(x, inplace=True)),
}
"""The same activations, written otherwise."""
HIDDEN: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "x.clamp(min=0)": ("relu", lambda x: x.clamp(min=0.0)),
    "where(x > 0, x, 0)": ("relu", lambda x: torch.where(x > 0, x, torch.zeros_like(x))),
    "x * (x > 0)": ("relu", lambda x: x * (x > 0)),
    "Swish.apply(x)": ("silu", Swish.apply),
}
"""The same again, in ways that a look at names of operations misses."""
FLATTENED: dict[str, Callable[[Tensor], Tensor]] = {
    "flatten": lambda x: x.flatten(1), "view": lambda x: x.view(len(x), -1), "reshape": lambda x: x.reshape(len(x), -1),
    "view(-1, ...)": lambda x: x.view(-1, x.shape[1] * x.shape[2] * x.shape[3]),
}  # fmt: skip


class Part(nn.Module):
    """One operation of a net: `function` of the values, called `word`; `simple` is its plain writing, if that differs."""

    def __init__(self, word: str, function: Callable[[Tensor], Tensor], simple: Part | None = None) -> None:
        super().__init__()
        self.word, self.function = word, function
        self.simple = [simple or self]  # in a list, so that it is no submodule

    def forward(self, values: Tensor) -> Tensor:
        return self.function(values)


class Layer(nn.Module):
    """A module of torch under a short name; `of_one` gives it the images one by one, without the batch's dimension."""

    def __init__(self, word: str, module: nn.Module, *, of_one: bool = False) -> None:
        super().__init__()
        self.word, self.module, self.of_one = word, module, of_one

    def forward(self, values: Tensor) -> Tensor:
        if self.of_one:
            return torch.stack([self.module(one) for one in values])
        result: Tensor = self.module(values)
        return result


class Chain(nn.Module):
    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    @property
    def word(self) -> str:
        return " > ".join(str(part.word) for part in self.parts)

    def forward(self, values: Tensor) -> Tensor:
        for part in self.parts:
            values = part(values)
        return values


class Residual(nn.Module):
    def __init__(self, body: nn.Module, sign: str) -> None:
        super().__init__()
        self.body, self.sign = body, sign

    @property
    def word(self) -> str:
        return f"x {self.sign} [{self.body.word}]"

    def forward(self, values: Tensor) -> Tensor:
        further = self.body(values)
        if self.sign == "+":
            return values + further
        further += values
        return further


class Twice(nn.Module):
    """The same modules, used twice."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    @property
    def word(self) -> str:
        return f"2 * [{self.body.word}]"

    def forward(self, values: Tensor) -> Tensor:
        return self.body(self.body(values))


class Attention(nn.Module):
    """Self-attention over the places of the image, one head."""

    def __init__(self, channels: int, *, fused: bool) -> None:
        super().__init__()
        self.word = "attention" if fused else "softmax attention"
        self.query, self.key, self.value = (nn.Linear(channels, channels) for _ in range(3))
        self.fused = fused

    def forward(self, values: Tensor) -> Tensor:
        tokens = values.flatten(2).transpose(1, 2)
        query, key, value = self.query(tokens), self.key(tokens), self.value(tokens)
        if self.fused:
            mixed = F.scaled_dot_product_attention(query, key, value)
        else:
            mixed = (query @ key.transpose(1, 2) / query.shape[-1] ** 0.5).softmax(-1) @ value
        return values + mixed.transpose(1, 2).reshape(values.shape)
