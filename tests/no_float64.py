"""A stand-in for Apple's GPU: its tensors have no float64, and meet none of another device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.overrides import TorchFunctionMode

MPS = torch.device("mps")
_INDEXING = (Tensor.__getitem__, Tensor.__setitem__)
_LEAVES = (Tensor.cpu, Tensor.tolist, Tensor.item)


class OnMps(Tensor):
    """A tensor of that device, whose memory is the CPU's."""


class StandIn(TorchFunctionMode):
    """While it is entered, tensors that are asked for on `mps` are such ones, and what is computed from them too.

    Args:
        anywhere: buffers of nets, which stay where they are, as parameters do.
    """

    def __init__(self, anywhere: Iterable[Tensor]) -> None:
        super().__init__()
        self._anywhere = {id(tensor) for tensor in anywhere}
        self._copies: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        given = list(_tensors([*args, *kwargs.values()]))
        here = any(isinstance(one, OnMps) for one in given)
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return MPS if here else _plain(func, args, kwargs)
        if func is Tensor.__deepcopy__ and id(args[0]) in self._anywhere:
            self._copies.append(_plain(func, args, kwargs))
            self._anywhere.add(id(self._copies[-1]))
            return self._copies[-1]
        if here and func in (Tensor.numpy, Tensor.__array__):
            raise TypeError("an mps tensor is no numpy array")
        if func is Tensor.to:
            target = kwargs.get("device", args[1] if len(args) > 1 else None)
            here = isinstance(target, OnMps) or _is(target, "mps") or (here and not _leaves(target))
        elif func not in (Tensor.copy_, *_LEAVES):
            self._require_one_device(func, args, given)
            device = kwargs.get("device")
            here = _is(device, "mps") or (here and device is None and func not in _LEAVES)
        else:
            here = here and func is Tensor.copy_
        found = _plain(func, [_real(one) for one in args], {name: _real(one) for name, one in kwargs.items()})
        return _marked(found) if here else _unmarked(found) if func in (Tensor.to, Tensor.cpu) else found

    def _require_one_device(self, func: Callable[..., Any], args: tuple[Any, ...], given: list[Tensor]) -> None:
        own = [one for one in given if one.dim() and id(one) not in self._anywhere and type(one) is not Parameter]
        if func in _INDEXING and isinstance(args[0], OnMps):
            own = [one for one in own if one.dtype not in (torch.int64, torch.bool)]
        if len({isinstance(one, OnMps) for one in own}) > 1:
            raise RuntimeError(f"{func} is given tensors of mps and of the CPU")


def _plain(func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    with torch._C.DisableTorchFunctionSubclass():
        return func(*args, **kwargs)


def _is(target: object, kind: str) -> bool:
    return isinstance(target, str | torch.device) and torch.device(target).type == kind


def _leaves(target: object) -> bool:
    return _is(target, "cpu") or (isinstance(target, Tensor) and not isinstance(target, OnMps))


def _real(one: Any) -> Any:
    return torch.device("cpu") if _is_device(one) else one


def _is_device(one: object) -> bool:
    return (
        (isinstance(one, torch.device) and one.type == "mps") or one == "mps" if not isinstance(one, Tensor) else False
    )


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _marked(found: Any) -> Any:
    if isinstance(found, tuple) and hasattr(found, "_fields"):
        return type(found)(*map(_marked, found))
    if isinstance(found, list | tuple) and not isinstance(found, torch.Size):
        kind = type(found)
        return kind([_marked(one) for one in found]) if kind in (list, tuple) else kind(map(_marked, found))
    if not isinstance(found, Tensor):
        return found
    if found.dtype == torch.float64:
        raise TypeError("an mps tensor cannot be of float64")
    return found if isinstance(found, OnMps) else found.as_subclass(OnMps)


def _unmarked(found: Tensor) -> Tensor:
    return found.as_subclass(Tensor) if isinstance(found, OnMps) else found
