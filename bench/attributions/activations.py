"""Looking at a net's operations while it runs: which activations it has, and putting others in their place.

Every operation of a forward pass is seen, whether it comes from a module or from a function call, so that a
`torch.relu` written by hand does not escape, nothing is copied and nothing has to be put back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn

from bench.attributions.operations import OperationMode, require_no_choice, tensors_in, uncompiled
from bench.nets.quick_softplus import softplus

PIECEWISE_NAMES = frozenset({
    "relu", "relu6", "hardtanh", "hardsigmoid", "leaky_relu", "prelu", "rrelu", "rnn_relu", "rnn_relu_cell",
})  # fmt: skip
"""Activations that are straight on both sides of their kinks; `nn.ReLU6` is a hardtanh."""


class SoftplusTwin(OperationMode):
    """Inside this context every ReLU computes softplus(x; beta) instead, and its kin are made of the same.

    A ReLU net's input gradient is piecewise constant, so that its own second derivatives show an attack on maps no
    way to go; its twin's do, and come close to the net as beta grows (Dombrowski et al. 2019; LGA, section 4.4).
    """

    def __init__(self, beta: float) -> None:
        super().__init__()
        if beta <= 0:
            raise ValueError("beta must be positive")
        self.beta = beta

    def intercept(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name not in PIECEWISE_NAMES:
            return func(*args, **kwargs)
        inputs = args[0]
        if name == "relu":
            return self._relu(inputs)
        if name in ("leaky_relu", "prelu", "rrelu"):
            slope = _slope(name, inputs, args, kwargs)
            return slope * inputs + (1.0 - slope) * self._relu(inputs)
        if name == "hardsigmoid":
            return (self._relu(inputs + 3.0) - self._relu(inputs - 3.0)) / 6.0
        low, high = (0.0, 6.0) if name == "relu6" else (
            _given(args, kwargs, 1, "min_val", default=-1.0), _given(args, kwargs, 2, "max_val", default=1.0)
        )  # fmt: skip
        return low + self._relu(inputs - low) - self._relu(inputs - high)

    def _relu(self, inputs: Tensor) -> Tensor:
        return softplus(inputs, self.beta)


def _slope(name: str, inputs: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float | Tensor:
    """The slope below zero, in eval mode."""
    if name == "prelu":
        weight: Tensor = args[1] if len(args) > 1 else kwargs["weight"]
        return weight if weight.dim() == 0 else weight.view(-1, *([1] * (inputs.dim() - 2)))
    if name == "rrelu":
        return 0.5 * (_given(args, kwargs, 1, "lower", default=1 / 8) + _given(args, kwargs, 2, "upper", default=1 / 3))
    return _given(args, kwargs, 1, "negative_slope", default=0.01)


def _given(args: tuple[Any, ...], kwargs: dict[str, Any], position: int, name: str, default: float) -> float:
    """An argument of a torch function, wherever it was given."""
    return float(args[position] if len(args) > position else kwargs.get(name, default))


class _Recorder(OperationMode):
    rewrites = False

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def intercept(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        require_no_choice(name, tensors_in((args, kwargs)))
        self.names.add(name)
        return func(*args, **kwargs)


def has_relu(model: nn.Module, images: Tensor) -> bool:
    """Whether a forward pass of `images` (N, C, H, W) computes a ReLU, or one of its kin, anywhere.

    Raises:
        BenchError: part of the net cannot be looked into, or may be an activation that has no name.
    """
    recorder = _Recorder()
    recorder.logits(model, images.detach().requires_grad_(True).clone(), "an attack on heat maps")
    return bool(recorder.names & PIECEWISE_NAMES)


@contextmanager
def smooth(beta: float | None) -> Iterator[None]:
    """The softplus twin with `beta`, or the net as it is where `beta` is None; with second derivatives either way."""
    with uncompiled(), nullcontext() if beta is None else SoftplusTwin(beta):
        yield
