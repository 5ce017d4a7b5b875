"""Taking in a net of the user's own, from a program or from memory; every such net passes here.

Judged are plain nets in eval mode and float32; what cannot become one is refused in one line. A net in memory is
copied, so that nothing that is done to it afterwards (modes, hooks, gradients, layout) reaches the user's.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from types import CellType, FunctionType, MethodType, TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bench.core.errors import BenchError, in_one_line
from bench.nets.adapter import PlainEval


def plain_net(net: nn.Module) -> nn.Module:
    """The net itself, out of its wrappers, in eval mode and float32, parameters without gradient.

    Raises:
        BenchError: it has lazy layers, or parameters without values.
    """
    net = _plain(net)
    _require_values(net)
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if not isinstance(parent, PlainEval) and _plain(child) is not child:
                setattr(parent, name, _plain(child))
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    return net.float().eval()


def own_net(net: object, *, sharing: bool = False) -> nn.Module:
    """A plain copy of a net in memory.

    Args:
        sharing: both share the parameters' memory, so that writing to one changes the other.

    Raises:
        BenchError: it is no net, cannot be copied, or is refused by `plain_net`.
    """
    if not isinstance(net, nn.Module):
        raise BenchError(
            f"the model is a {type(net).__name__}; pass a torch.nn.Module, such as bench.load_model(NAME) gives."
        )
    net = _unwrapped(net)
    _require_values(net)
    plain = [parameter for parameter in net.parameters() if type(parameter) is nn.Parameter]
    shared = {id(one): nn.Parameter(one.detach(), requires_grad=False) for one in plain} if sharing else {}
    return plain_net(copy_net(net, shared))


def copy_net(net: nn.Module, known: Mapping[int, object] | None = None) -> nn.Module:
    """A copy of the net. What cannot be copied is shared: a lock, a file, an activation without its graph.

    Args:
        known: what stands in the copy for objects of the net, by their id.

    Raises:
        BenchError: a module of the net refuses to be copied.
    """
    shared: dict[int, object] = {}
    while True:
        memo: dict[int, Any] = {**(known or {}), **shared}
        try:
            with torch.no_grad():  # parameters of a script would come out as results of a computation
                copied = copy.deepcopy(net, memo)
        except Exception as error:  # of any kind: these are classes of the user's own
            stuck = _argument_of_innermost_copy(error.__traceback__)
            if isinstance(stuck, nn.Module) or id(stuck) in shared:
                raise BenchError(
                    f"the net cannot be copied ({in_one_line(error, 160)}); write a function that makes it, and name "
                    "it: FILE.py:FUNCTION."
                ) from error
            shared[id(stuck)] = stuck.detach() if isinstance(stuck, Tensor) else stuck
        else:
            _rebind_functions(copied, memo)
            return copied


def _rebind_functions(copied: nn.Module, memo: dict[int, Any]) -> None:
    """Functions that modules hold (`self.block = lambda x: self.layer(x)`) are to call the copy, not the user's net."""
    for module in copied.modules():
        holders: list[dict[Any, Any]] = [vars(module), module._forward_hooks, module._forward_pre_hooks]
        for holder in holders:
            for name, value in list(holder.items()):
                if isinstance(value, FunctionType):
                    holder[name] = _in_the_copy(value, memo)


def _in_the_copy(value: Any, memo: dict[int, Any]) -> Any:
    """What stands in the copy for a module, a method of one, or a function that refers to either."""
    if isinstance(value, MethodType) and id(value.__self__) in memo:
        return MethodType(value.__func__, memo[id(value.__self__)])
    if isinstance(value, nn.Module) or id(value) in memo:
        return memo.get(id(value), value)
    if not isinstance(value, FunctionType):
        return value
    memo[id(value)] = value  # in case that it refers to itself
    seen = inspect.getclosurevars(value)
    own = {name: _in_the_copy(one, memo) for name, one in (*seen.globals.items(), *seen.nonlocals.items())}
    if all(one is own[name] for name, one in (*seen.globals.items(), *seen.nonlocals.items())):
        return value
    cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
    made = FunctionType(
        value.__code__,
        value.__globals__ | {name: own[name] for name in seen.globals},
        value.__name__,
        value.__defaults__,
        tuple(CellType(own[name]) if name in own else cell for name, cell in cells),
    )
    made.__kwdefaults__ = value.__kwdefaults__
    memo[id(value)] = made
    return made


def _argument_of_innermost_copy(trace: TracebackType | None) -> object:
    """The object at which `copy.deepcopy` failed."""
    found: object = None
    while trace is not None:
        if trace.tb_frame.f_code is copy.deepcopy.__code__:
            found = trace.tb_frame.f_locals["x"]
        trace = trace.tb_next
    return found


def _plain(net: nn.Module) -> nn.Module:
    """The net out of its wrapper; a graph of torch.export, which refuses `eval()`, in one that takes it."""
    net = _unwrapped(net)
    if isinstance(net, torch.fx.GraphModule):
        try:
            net.train(net.training)
        except NotImplementedError:
            return PlainEval(net)
    return net


def _unwrapped(net: nn.Module) -> nn.Module:
    """The net inside torch.compile, DataParallel and the like: the same function of the same weights."""
    while not (net._forward_hooks or net._forward_pre_hooks):
        inner = getattr(net, "_orig_mod", None)
        if type(net) in (nn.DataParallel, nn.parallel.DistributedDataParallel):
            inner = net.module
        if not isinstance(inner, nn.Module):
            break
        net = inner
    return net


def _require_values(net: nn.Module) -> None:
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        if is_lazy(tensor):
            raise BenchError(
                f"the net has a lazy layer that has not seen an image yet ({name}); send one through it first: "
                "net(images[:1])."
            )
        if tensor.is_meta:
            raise BenchError(f"{name} of the net is on the meta device, without values; load its weights first.")
