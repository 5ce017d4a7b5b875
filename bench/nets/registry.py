"""The register of architectures: a decorator puts a factory under its own name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

from torch import nn

from bench.core.errors import BenchError
from bench.core.names import unknown_name
from bench.core.plugins import load_plugin, plugin_names

NetFactory = Callable[..., nn.Module]
_GROUP = "bench.models"
_UNBUILDABLE = (
    TypeError, ValueError, RuntimeError, ArithmeticError, LookupError, AttributeError, AssertionError, MemoryError,
)  # fmt: skip
"""What nets raise for parameters that make no sense; those of a card may be anything."""
_FACTORIES: dict[str, NetFactory] = {}


def register_net(factory: NetFactory) -> NetFactory:
    """Register `factory` under its function name; a second factory of that name is refused."""
    name = factory.__name__
    if name in _FACTORIES:
        raise ValueError(f"architecture {name!r} is registered twice")
    _FACTORIES[name] = factory
    return factory


def architectures() -> list[str]:
    """The names of this package's architectures and of what plug-ins announce."""
    return sorted({*_FACTORIES, *plugin_names(_GROUP)})


def build_net(name: str, parameters: Mapping[str, Any]) -> nn.Module:
    """Build a net, in float32 on the CPU.

    Raises:
        BenchError: the architecture is unknown, or does not take these parameters.
    """
    factory = _FACTORIES.get(name) or _from_plugin(name)
    try:
        inspect.signature(factory).bind(**parameters)
        return factory(**parameters)
    except _UNBUILDABLE as error:
        reason = " ".join(str(error).split())[:200]
        raise BenchError(f"architecture {name!r} cannot be built with {dict(parameters)!r}: {reason}.") from error


def _from_plugin(name: str) -> NetFactory:
    """The architecture that an installed package announces in `bench.models`."""
    if name not in plugin_names(_GROUP):
        raise unknown_name(name, architectures(), "architecture")
    factory = load_plugin(_GROUP, name)
    if not callable(factory):
        raise BenchError(f"the plug-in {name!r} in {_GROUP} is a {type(factory).__name__}, not an architecture.")
    return cast(NetFactory, factory)
