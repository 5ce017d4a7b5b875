"""Nets of other people's packages as architectures of this one: timm, torchvision, RobustBench's zoo.

Here are the nets alone, built without weights; pretrained weights are found by bench.catalog.pretrained. Names come
from cards, so each is looked up in its package's own list, and nothing that loads or downloads a file is passed on.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from typing import Any

from torch import nn

from bench.core.errors import BenchError
from bench.core.names import unknown_name
from bench.core.packages import optional_import
from bench.nets.adapter import Adapter, AdapterSettings
from bench.nets.external.robustbench_zoo import build_robustbench_net
from bench.nets.registry import register_net

_LOADING_ARGUMENTS = ("pretrained", "checkpoint", "cache_dir", "scriptable", "exportable", "no_jit", "num_classes")


@register_net
def timm(
    *,
    name: str,
    num_classes: int,
    in_channels: int = 3,
    arguments: Mapping[str, Any] | None = None,
    adapter: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A net of timm (PyTorch Image Models) behind its adaptation.

    Args:
        arguments: further arguments of the net, as a hub's config.json has them under `model_args`; plain values.
    """
    package = timm_package(name)
    _refuse_loading(arguments or {})
    with warnings.catch_warnings(action="ignore"):
        net = package.create_model(
            name, pretrained=False, num_classes=num_classes, in_chans=in_channels, **(arguments or {})
        )
    return Adapter(net, AdapterSettings(**(adapter or {})))


def timm_package(name: str) -> Any:
    """The package timm, which has a net of that name; raises BenchError."""
    package = optional_import("timm", "a timm model", "ribench[timm]")
    if not package.is_model(name):
        raise unknown_name(name, package.list_models(), "timm model")
    return package


def torchvision_models(name: str) -> Any:
    """The module torchvision.models, which has a classifier of that name; raises BenchError."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise unknown_name(name, known, "torchvision model")
    return models


def _refuse_loading(arguments: Mapping[str, Any]) -> None:
    for key, value in arguments.items():
        if key.startswith(_LOADING_ARGUMENTS):
            raise BenchError(f"a timm model's argument {key!r} could load something; only those of the net are taken.")
        values = value if isinstance(value, list | tuple) else [value]
        if not all(isinstance(one, bool | int | float | str | None) for one in values):
            raise BenchError(f"a timm model's argument {key!r} must be a plain value or a list of them.")


@register_net
def torchvision(*, name: str, num_classes: int, adapter: Mapping[str, Any] | None = None) -> nn.Module:
    """A classifier of torchvision.models behind its adaptation; three channels."""
    models = torchvision_models(name)
    arguments = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return Adapter(
        models.get_model(name, weights=None, num_classes=num_classes, **arguments), AdapterSettings(**(adapter or {}))
    )


@register_net
def robustbench(*, dataset: str, threat: str, name: str, adapter: Mapping[str, Any] | None = None) -> nn.Module:
    """A net of RobustBench's model zoo behind its adaptation; they take pixels in [0, 1] as they are."""
    with contextlib.redirect_stdout(None):
        net = build_robustbench_net(dataset, threat, name)
    return Adapter(net, AdapterSettings(**(adapter or {})))
