"""Nets through torch.compile, for the search alone: what decides goes through the net as it is."""

from __future__ import annotations

import copy
import os
import shutil
import sys
from collections.abc import Callable
from types import CodeType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from bench.core.errors import BenchError, goes_on, in_one_line
from bench.core.precision import MixedPrecision, Precision, as_float32, float32_products, uncompiled

_FEWEST = 2
"""A batch of one is a program of its own to torch.compile; it goes twice through that of many in its place."""
_COMPILED: WeakKeyDictionary[nn.Module, dict[Precision, CompiledNet]] = WeakKeyDictionary()


class CompiledNet:
    """A net's forward through torch.compile, one program for batches of any size."""

    def __init__(self, net: nn.Module, precision: Precision, device_type: str) -> None:
        # of the same weights, without the hooks that the net gets later, which would be compiled too
        self._twin = copy.copy(net)
        self._twin._forward_pre_hooks = net._forward_pre_hooks.copy()
        mixed = MixedPrecision(self._twin, device_type) if uncompiled(precision) == "bfloat16" else self._twin
        self._call: Callable[[Tensor], Tensor] = torch.compile(_in_own_code(mixed))

    def __call__(self, net: nn.Module, images: Tensor) -> Tensor:
        """(N, K) logits of the net; hooks that look before it is called do so here."""
        for key, hook in net._forward_pre_hooks.items():
            if key not in self._twin._forward_pre_hooks:
                hook(net, (images,))
        many = images.expand(_FEWEST, *images.shape[1:]).contiguous() if len(images) == 1 else images
        torch._dynamo.maybe_mark_dynamic(many, 0)
        return self._call(many)[: len(images)]


def _in_own_code(net: nn.Module) -> Callable[[Tensor], Tensor]:
    """The net's call as a function with code of its own, by which torch.compile counts how often it has compiled."""

    def call(images: Tensor) -> Tensor:
        logits: Tensor = net(images)
        return logits

    code: CodeType = call.__code__
    call.__code__ = code.replace()
    return call


def compiled(net: nn.Module, precision: Precision, device_type: str) -> CompiledNet:
    """The net through torch.compile in the precision of a search, made once; it is compiled as it is called."""
    made = _COMPILED.setdefault(net, {})
    if precision not in made:
        made[precision] = CompiledNet(net, precision, device_type)
    return made[precision]


def compile_net(net: nn.Module, precision: Precision, images: Tensor) -> None:
    """Compile the net as a search in this precision needs it.

    Args:
        net: on the device, eval mode.
        images: (N, C, H, W), two or more.

    Raises:
        BenchError: torch.compile cannot do it.
    """
    for one in dict.fromkeys((precision, as_float32(precision))):
        try:
            with float32_products(), torch.enable_grad():
                points = images.detach().clone().requires_grad_(True)
                torch.autograd.grad(compiled(net, one, images.device.type)(net, points).sum(), points)
        except Exception as error:
            _COMPILED.pop(net, None)
            if goes_on(error):
                raise
            raise BenchError(f"torch.compile cannot do it ({in_one_line(error)})") from error


def require_compiler(device: torch.device) -> None:
    """Raise BenchError where torch.compile would find nothing to compile with."""
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    name, lacking = os.environ.get("CXX", usual), ""
    if device.type == "cuda":
        from torch.utils import _triton

        triton: Any = _triton
        lacking = "" if triton.has_triton() else "triton on a GPU; install it"
    elif shutil.which(name) is None:
        lacking = f"a C++ compiler and there is no {name}; install it, name another one in CXX"
    if lacking:
        raise BenchError(f"torch.compile needs {lacking}, or search with the net as it is.", option="compile")
