"""Looking into a net: every operation of a forward pass by name, and a refusal where some are hidden.

What runs unseen (TorchScript, user-defined autograd functions) would silently be left out of a rule; so each tensor
that an operation takes must come from an operation that was seen before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node, get_gradient_edge
from torch.overrides import TorchFunctionMode

from bench.core.errors import BenchError

ACTIVATION_NAMES = frozenset({
    "relu", "softplus", "elu", "leaky_relu", "gelu", "silu", "mish", "tanh", "sigmoid", "relu6", "hardtanh", "selu",
    "celu", "hardswish", "hardsigmoid", "prelu", "rrelu", "logsigmoid", "softsign", "tanhshrink", "softshrink",
    "hardshrink", "threshold",
})  # fmt: skip
_IN_PLACE = ACTIVATION_NAMES | {"add", "sub", "mul", "div"}
"""Operations that rules replace, and whose in-place form must be told from the other."""
_HIDING = frozenset(
    {"lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell", "glu"}
)
"""Operations with activations inside."""
_CHOICES = frozenset({"where", "maximum", "minimum", "fmax", "fmin"})
"""Operations that may be an activation written by hand, as `where(x > 0, x, 0)`; `x * (x > 0)` is told by its mask."""
_TRANSPARENT = frozenset({
    "AsStridedBackward0", "ViewBackward0", "SliceBackward0", "SelectBackward0", "BackwardHookFunctionBackward",
})  # fmt: skip
"""Nodes that autograd makes by itself: for views of a tensor that was changed in place, and for hooks of modules."""
_INSTEAD = "take gradient, integrated_gradients or smoothgrad, or a suite that attacks predictions"
_CHECKED: ContextVar[bool] = ContextVar("checked", default=False)
_OFF, _ROUNDING = 1e-2, 1e-4
"""How far the mode's logits may be from the net's: shares of their range, and of the largest (rounding)."""


class OperationMode(TorchFunctionMode):
    """Hands every torch operation to `intercept`, by name; the tensor that it works on is `args[0]`.

    An operation has one name however it is called (`relu_`, `aten.relu.default` and `clamp(min=0)` are a relu), and a
    function that does not change its argument.
    """

    rewrites: ClassVar[bool] = True
    """Whether `intercept` puts something else in the place of operations."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[Node] | None = None

    def logits(self, model: nn.Module, inputs: Tensor, purpose: str) -> Tensor:
        """`model(inputs)` inside this mode, with its graph; `inputs` (N, C, H, W) require gradients.

        Raises:
            BenchError: the net returns no tensor, something of it is not seen, or the logits are not the net's own;
                `purpose` begins the message of the latter two.
        """
        self._seen, self._purpose = {get_gradient_edge(inputs).node}, purpose
        try:
            with torch.enable_grad(), uncompiled(), self:
                logits: Tensor = model(inputs)
            require_logits(logits)
            self._require_seen([logits])
        finally:
            self._seen = None  # lets go of the graph
        require_gradient(logits)
        if self.rewrites and not _CHECKED.get():
            self._require_same(model, inputs, logits)
        return logits

    def intercept(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        raise NotImplementedError

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if not args and "input" in named:
            args = (named.pop("input"),)
        given = tensors_in((args, named))
        self._require_seen(given)
        called = getattr(func, "__name__", "").partition(".")[0]  # aten's have their overload behind a point
        name = _plain_name(called, args, named)
        if self.rewrites and name in _HIDING and any(one.requires_grad for one in given):
            raise BenchError(
                f"the operation {name!r} of this net has activations inside, for which there is no rule; {_INSTEAD}."
            )
        if self.rewrites and name in _IN_PLACE and (called.endswith("_") or named.get("inplace")):
            result = self._changed(name, func, args, named)
        else:
            result = self.intercept(name, func, args, named)
        if self._seen is not None:
            after = (*given, *tensors_in((result,)))
            after = (*after, *(one._base for one in after if one._base is not None))
            self._seen.update(one.grad_fn for one in after if one.grad_fn is not None)
        return result

    def _changed(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """An operation in place: what `intercept` makes of it, written into its argument."""
        target: Tensor = args[0]

        def apart(values: Tensor, *others: Any, **named: Any) -> Any:
            return func(values.clone(), *others, **named)

        return target.copy_(self.intercept(name, apart, (target.clone(), *args[1:]), kwargs))

    def _require_seen(self, tensors: Iterable[Tensor]) -> None:
        if self._seen is None:
            return
        ways = [one.grad_fn for one in tensors if one.grad_fn is not None]
        while ways:
            node = ways.pop()
            if node in self._seen:
                continue
            if type(node).__name__ in _TRANSPARENT:
                ways += _parents(node)
            elif not self._seen.isdisjoint(ancestors(node)):
                raise BenchError(
                    f"{self._purpose} cannot look into all of this net: {type(node).__name__} comes from TorchScript "
                    f"or an autograd function; give the net as plain PyTorch, or {_INSTEAD}."
                )

    def _require_same(self, model: nn.Module, inputs: Tensor, logits: Tensor) -> None:
        with torch.no_grad():
            plain = model(inputs.detach().clone())
            logits, plain = logits.nan_to_num(0.0, 0.0, 0.0), plain.nan_to_num(0.0, 0.0, 0.0)
            off = (logits - plain).abs().amax()
            allowed = _OFF * (plain.amax() - plain.amin()) + _ROUNDING * plain.abs().amax()
        if not off <= allowed:
            raise BenchError(
                f"{self._purpose} finds other logits than the net itself (by up to {float(off):.2g}): the net is "
                f"random, or does something that is not seen; {_INSTEAD}."
            )


@contextmanager
def checked_before(really: bool) -> Iterator[None]:
    """Inside, modes do not hold their logits against the net's: that takes a forward pass, and waits for the device."""
    token = _CHECKED.set(really)
    try:
        yield
    finally:
        _CHECKED.reset(token)


def uncompiled() -> AbstractContextManager[object]:
    """Inside, compiled nets run as they were before: nothing is hidden, and second derivatives exist."""
    # without this module, which takes a second to import, there is no compiled net
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def require_no_choice(name: str, given: list[Tensor]) -> None:
    """Raise BenchError where an operation on `given` may be an activation that cannot be recognised."""
    masks = name.strip("_") in ("mul", "rmul") and any(one.dtype == torch.bool for one in given)
    if (name in _CHOICES or masks) and any(one.requires_grad for one in given):
        raise BenchError(
            f"the operation {name!r} of this net may be an activation, for which there is no rule; write it as one "
            f"(F.relu), or {_INSTEAD}."
        )


def require_logits(given: object) -> None:
    """Raise BenchError where what a net returns is no tensor."""
    if not isinstance(given, Tensor):
        raise BenchError(
            f"the net returns a {type(given).__name__}; wrap it in a net whose forward returns the logits (N, K) alone."
        )


def require_gradient(logits: Tensor) -> None:
    """Raise BenchError where logits are no tensor, or have no graph."""
    require_logits(logits)
    if not logits.requires_grad:
        raise BenchError("the logits have no gradient to the image: the net cuts it off (detach, no_grad, rounding).")


def ancestors(node: Node | None) -> Iterator[Node]:
    """The nodes of autograd's graph that `node` leads back to, itself first."""
    if node is None:
        return
    found, ways = {node}, [node]
    while ways:
        node = ways.pop()
        yield node
        new = [parent for parent in _parents(node) if parent not in found]
        found.update(new)
        ways += dict.fromkeys(new)


def _parents(node: Node) -> list[Node]:
    return [parent for parent, _ in node.next_functions if parent is not None]


def tensors_in(values: Iterable[Any]) -> list[Tensor]:
    """The tensors of a nested structure."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors_in(value)
        elif isinstance(value, dict):
            found += tensors_in(value.values())
    return found


def _plain_name(called: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The name of an operation without the marks of its form; a clamp or a threshold at zero is a relu."""
    plain = called.strip("_")
    if plain in ("clamp", "clip", "clamp_min", "threshold"):
        first, second = ("threshold", "value") if plain == "threshold" else ("min", "max")
        low, high = (kwargs.get(key, (*args, None, None)[at]) for at, key in ((1, first), (2, second)))
        if isinstance(low, int | float) and low == 0 and high == (0 if plain == "threshold" else None):
            return "relu"
    return plain if plain in _IN_PLACE else called
