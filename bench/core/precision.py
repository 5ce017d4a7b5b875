"""In which precision a net computes: float32 for all that is judged, less only where candidates are looked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.core.bounds import PRECISIONS
from bench.core.bounds import Precision as Precision
from bench.core.errors import BenchError
from bench.core.names import unknown_name

_COMPILED = "-compiled"
"""Ends the names of those whose search goes through torch.compile."""


def resolve_precision(name: str, device: torch.device, *, compiled: bool = False) -> Precision:
    """A precision of the command line, for a device that has it; raises BenchError."""
    if name not in PRECISIONS:
        raise unknown_name(name, PRECISIONS, "precision")
    if name == "tf32" and (device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0)):
        raise BenchError("precision tf32 needs a CUDA device of compute capability 8.0; use float32 or bfloat16.")
    if name != "float32" and device.type == "mps":
        raise BenchError(f"precision {name} is for CPUs and CUDA devices; use float32.")
    return cast(Precision, f"{name}{_COMPILED}") if compiled else name


def uncompiled(precision: Precision) -> Precision:
    """The same of the net as it is, without torch.compile."""
    return cast(Precision, precision.removesuffix(_COMPILED))


def as_float32(precision: Precision) -> Precision:
    """float32, through torch.compile where the precision is."""
    return "float32" if precision == uncompiled(precision) else "float32-compiled"


class MixedPrecision(nn.Module):
    """Runs a net under bfloat16 autocast; parameters, logits and losses stay float32."""

    def __init__(self, net: nn.Module, device_type: str) -> None:
        super().__init__()
        self.net, self.device_type = net, device_type

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(self.device_type, torch.bfloat16):
            logits: Tensor = self.net(images)
        return logits.float()


@contextmanager
def float32_products(*, tf32: bool = False) -> Iterator[None]:
    """Convolutions and matrix products of float32 numbers in float32, or in TF32; what was set is put back.

    Torch's default on a GPU is TF32 in convolutions, with ten bits of mantissa: verdicts would differ from a CPU's.
    Its fast path of transformers, which runs where no gradient is wanted, is off: logits would differ from those that
    are attacked, and the activations in it could not be seen.
    """
    found = [(write, _asked(read), value) for read, write, value in _switches(tf32)]
    known = [one for one in found if one[1] is not None]
    try:
        for write, _, value in known:
            write(value)
        yield
    finally:
        for write, before, _ in known:
            write(before)


def _asked(read: Callable[[], Any]) -> Any:
    """What a switch says; None where torch refuses to say it, since old and new switches contradict each other."""
    try:
        return read()
    except RuntimeError:
        return None


_Switch = tuple[Callable[[], Any], Callable[[Any], object], object]


def _switches(tf32: bool) -> list[_Switch]:
    """What reads a switch of torch, what sets it, and the value; from torch 2.9 on there is one for each operation.

    The old ones are set too, and first: torch refuses to answer, to `torch.export` for one, where they say otherwise.
    """
    backends: Any = torch.backends
    switches: list[_Switch] = [
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "high" if tf32 else "highest"),
        _attribute(backends.cudnn, "allow_tf32", tf32),
        (backends.mha.get_fastpath_enabled, backends.mha.set_fastpath_enabled, False),
    ]
    if not hasattr(backends.cudnn, "conv"):
        return switches
    gpu = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    cpu = [backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn]
    return [
        *switches,
        *(_attribute(holder, "fp32_precision", "tf32" if tf32 else "ieee") for holder in gpu),
        *(_attribute(holder, "fp32_precision", "ieee") for holder in cpu),
    ]


def _attribute(holder: Any, name: str, value: object) -> _Switch:
    return lambda: getattr(holder, name), lambda given: setattr(holder, name, given), value
