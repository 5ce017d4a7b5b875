"""Choosing where to compute: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`, checked before anything starts."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from bench.core.errors import BenchError
from bench.core.version import package_versions


def resolve_device(name: str) -> torch.device:
    """The torch device for a name of the command line; raises BenchError if it is none, or not on this machine."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BenchError(f"unknown device {name!r}; use auto, cpu, cuda, cuda:N or mps.", option="device") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BenchError(f"device {name!r} was asked for, but torch sees no CUDA device; use cpu.", option="device")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BenchError(
            f"device {name!r} was asked for, but there are only {torch.cuda.device_count()} CUDA devices.",
            option="device",
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise BenchError(f"device {name!r} was asked for, but torch sees no GPU of Apple's; use cpu.", option="device")
    if device.type not in ("cpu", "cuda", "mps"):
        raise BenchError(f"device {name!r} is not supported; use auto, cpu, cuda, cuda:N or mps.", option="device")
    return device


def has_float64(device: torch.device) -> bool:
    """Whether tensors on the device can be of float64; Apple's GPUs have none."""
    return device.type != "mps"


def exact(values: Tensor) -> Tensor:
    """The values in float64, for arithmetic that decides verdicts: where they are, or else on the CPU."""
    return (values if has_float64(values.device) else values.cpu()).double()


def exact_device(device: torch.device) -> torch.device:
    """Where `exact` leaves values of the device."""
    return device if has_float64(device) else torch.device("cpu")


def exact_dtype(device: torch.device) -> torch.dtype:
    """For radii that lie beside images on the device: float64, or the nearest that there is."""
    return torch.float64 if has_float64(device) else torch.float32


def worker_device(device: torch.device, number: int) -> torch.device:
    """The device of the worker of a number, from 0: this machine's GPUs in turn, unless one of them was asked for."""
    if device.type != "cuda" or ":" in str(device):
        return device
    return torch.device("cuda", number % torch.cuda.device_count())


def current_device(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU torch's current one for a while: other people's code allocates on `cuda`, whichever that is."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def computed_by(device: torch.device) -> str:
    """What decides a number's last digits: torch, the packages that numbers come from and the device, as one line."""
    versions = {"torch": str(torch.__version__)} | package_versions()
    return ", ".join([device_label(device), *(f"{name} {version}" for name, version in versions.items())])


def device_label(device: torch.device) -> str:
    """What the leaderboard prints: `cpu`, or the GPU's name."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type
