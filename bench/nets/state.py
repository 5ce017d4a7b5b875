"""What a net keeps from call to call: if calls change it, an answer may depend on the images seen before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.core.devices import exact_device

_OF_ANY_MODULE = frozenset(vars(nn.Module()))
"""Training flag, hooks and the like, which are not the net's own."""
_DEEPEST = 4
_MOST = 1000
"""So many entries of a container are looked at; its length is always."""


def state_of(net: nn.Module) -> dict[str, str]:
    """Names of the parameters, buffers and other attributes of all modules -> what they hold, told apart by sums.

    What hangs in closures, in modules of Python or in files is not seen.
    """
    found: dict[str, str] = {}
    for name, value in [*net.named_parameters(), *net.named_buffers()]:
        found[name] = _sum(value)
    for prefix, module in net.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        for key, value in vars(module).items():
            if key not in _OF_ANY_MODULE:
                found.update(_look(value, f"{prefix}.{key}" if prefix else key, _DEEPEST))
    return found


def changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The names whose values differ, or that only one of them has."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _look(value: Any, name: str, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(value, Tensor | np.ndarray):
        yield name, _sum(value)
    elif value is None or isinstance(value, bool | int | float | complex | str | bytes):
        yield name, repr(value)
    elif isinstance(value, nn.Module | type) or callable(value) or depth == 0:
        return
    elif isinstance(value, dict):
        yield name, str(len(value))
        for key in list(value)[:_MOST]:
            yield from _look(value[key], f"{name}[{key!r}]"[:200], depth - 1)
    elif hasattr(value, "__len__") and hasattr(value, "__iter__"):
        yield name, str(len(value))
        if isinstance(value, list | tuple):
            for number, entry in enumerate(value[:_MOST]):
                yield from _look(entry, f"{name}[{number}]", depth - 1)
    else:
        for key, entry in list(getattr(value, "__dict__", {}).items())[:_MOST]:
            yield from _look(entry, f"{name}.{key}", depth - 1)


def _sum(values: Tensor | np.ndarray[Any, Any]) -> str:
    try:
        found = torch.as_tensor(values).detach()
        total = found.to(exact_device(found.device)).sum(dtype=torch.float64)
        return f"{tuple(values.shape)} {float(total)!r}"
    except (RuntimeError, TypeError, NotImplementedError):  # no numbers, or none that can be summed up
        return ""
