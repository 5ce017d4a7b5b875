"""The register of architectures: a decorator puts a factory under its own name. A new net is one file."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

from torch import nn

from bench.core.errors import BenchError, reason_of
from bench.core.names import unknown_name
from bench.core.packages import load_plugin, plugin_names
from bench.nets.layers import Normalization

NetFactory = Callable[..., nn.Module]
_GROUP = "bench.models"
_UNBUILDABLE = (
    TypeError, ValueError, RuntimeError, ArithmeticError, LookupError, AttributeError, AssertionError, MemoryError,
)  # fmt: skip
"""What nets raise for parameters that make no sense; those of a card may be anything."""
_FACTORIES: dict[str, NetFactory] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class NetOptions:
    """What every classifier of this package is told; a recipe has the papers' choice of `activation`.

    Attributes:
        mean, std: per channel, of pixels in [0, 1].
        activation: `relu` or `softplus`, the latter with `softplus_beta` (LGA, section 1.3: beta 3 makes input
            gradients differentiable).
    """

    in_channels: int
    image_size: int
    num_classes: int
    mean: Sequence[float]
    std: Sequence[float]
    activation: str = "relu"
    softplus_beta: float = 3.0

    def side(self, factor: int) -> int:
        """The side after strides of `factor` in all; raises ValueError where it is no whole number."""
        if self.image_size % factor:
            raise ValueError(f"image_size must be a multiple of {factor}")
        return self.image_size // factor

    def act(self) -> nn.Module:
        """A fresh activation."""
        if self.activation == "relu":
            return nn.ReLU()
        if self.activation != "softplus":
            raise ValueError(f"unknown activation {self.activation!r}, use relu or softplus")
        if self.softplus_beta <= 0:
            raise ValueError("softplus_beta must be positive")
        return nn.Softplus(beta=self.softplus_beta)


def register_classifier(layers: Callable[..., Mapping[str, nn.Module]]) -> NetFactory:
    """Register a function of NetOptions, and of keywords of its own, that gives a net's layers by name, in order.

    The net is a sequence of them behind its normalisation; cards have options and keywords side by side.
    """
    shared, own = inspect.signature(NetOptions).parameters, list(inspect.signature(layers).parameters.values())[1:]

    def build(**parameters: Any) -> nn.Module:
        options = NetOptions(**{name: parameters.pop(name) for name in shared if name in parameters})
        return nn.Sequential(
            OrderedDict(normalization=Normalization(options.mean, options.std), **layers(options, **parameters))
        )

    build.__name__, build.__doc__ = layers.__name__, layers.__doc__
    build.__signature__ = inspect.Signature([*shared.values(), *own], return_annotation="nn.Module")  # type: ignore[attr-defined]
    return register_net(build)


def register_modules(package: ModuleType) -> None:
    """Import every module of a package, so that what lies there is registered."""
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


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
    """Build a net, in float32 on the CPU; raises BenchError if it is unknown, or does not take these parameters."""
    factory = _FACTORIES.get(name) or _from_plugin(name)
    try:
        return factory(**parameters)
    except _UNBUILDABLE as error:
        what = f"architecture {name!r} cannot be built with {dict(parameters)!r}"
        raise BenchError(f"{what}: {reason_of(error, 200)}.") from error


def _from_plugin(name: str) -> NetFactory:
    """The architecture that an installed package announces in `bench.models`."""
    if name not in plugin_names(_GROUP):
        raise unknown_name(name, architectures(), "architecture")
    factory = load_plugin(_GROUP, name)
    if not callable(factory):
        raise BenchError(f"the plug-in {name!r} in {_GROUP} is a {type(factory).__name__}, not an architecture.")
    return cast(NetFactory, factory)
