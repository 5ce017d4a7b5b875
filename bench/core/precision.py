"""In which precision a net computes: float32 for whatever is judged, less only where candidates are looked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from bench.core.errors import BenchError
from bench.core.names import unknown_name

Precision = Literal["float32", "tf32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def resolve_precision(name: str, device: torch.device) -> Precision:
    """A precision of the command line, for a device that has it; raises BenchError."""
    if name not in PRECISIONS:
        raise unknown_name(name, PRECISIONS, "precision")
    if name == "tf32" and (device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0)):
        raise BenchError("precision tf32 needs a CUDA device of compute capability 8.0; use float32 or bfloat16.")
    return name


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
    """
    found = [(holder, name, getattr(holder, name)) for holder, name, _ in _switches(tf32)]
    try:
        for holder, name, value in _switches(tf32):
            setattr(holder, name, value)
        yield
    finally:
        for holder, name, value in found:
            setattr(holder, name, value)


def _switches(tf32: bool) -> list[tuple[Any, str, object]]:
    """(holder, attribute, value) of torch's switches; one for each operation from torch 2.9 on."""
    backends: Any = torch.backends
    if not hasattr(backends.cudnn, "conv"):
        return [(backends.cudnn, "allow_tf32", tf32), (backends.cuda.matmul, "allow_tf32", tf32)]
    gpu = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    cpu = [backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn]
    return [
        *((holder, "fp32_precision", "tf32" if tf32 else "ieee") for holder in gpu),
        *((holder, "fp32_precision", "ieee") for holder in cpu),
    ]
