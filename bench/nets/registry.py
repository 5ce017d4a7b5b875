"""The register of architectures: a decorator puts a factory under its own name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from bench.core.errors import BenchError
from bench.core.names import unknown_name

NetFactory = Callable[..., nn.Module]
_FACTORIES: dict[str, NetFactory] = {}


def register_net(factory: NetFactory) -> NetFactory:
    """Register `factory` under its function name; a second factory of that name is refused."""
    name = factory.__name__
    if name in _FACTORIES:
        raise ValueError(f"architecture {name!r} is registered twice")
    _FACTORIES[name] = factory
    return factory


def architectures() -> list[str]:
    return sorted(_FACTORIES)


def build_net(name: str, parameters: Mapping[str, Any]) -> nn.Module:
    """Build a net, in float32 on the CPU.

    Raises:
        BenchError: the architecture is unknown, or does not take these parameters.
    """
    if name not in _FACTORIES:
        raise unknown_name(name, _FACTORIES, "architecture")
    factory = _FACTORIES[name]
    try:
        inspect.signature(factory).bind(**parameters)
        return factory(**parameters)
    except (TypeError, ValueError) as error:
        raise BenchError(f"architecture {name!r} cannot be built with {dict(parameters)}: {error}.") from error
