"""Choosing where to compute: `auto`, `cpu`, `cuda`, `cuda:1`, checked before anything starts."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from bench.core.errors import BenchError


def resolve_device(name: str) -> torch.device:
    """The torch device for a name of the command line.

    Raises:
        BenchError: the name is no device, or that device is not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BenchError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N.", option="device") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BenchError(f"device {name!r} was asked for, but torch sees no CUDA device; use cpu.", option="device")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BenchError(
            f"device {name!r} was asked for, but there are only {torch.cuda.device_count()} CUDA devices.",
            option="device",
        )
    if device.type not in ("cpu", "cuda"):
        why = ": it has no float64, in which adversarial examples are measured" if device.type == "mps" else ""
        raise BenchError(f"device {name!r} is not supported{why}; use auto, cpu, cuda or cuda:N.", option="device")
    return device


def worker_device(device: torch.device, number: int) -> torch.device:
    """The device of the worker of a number, from 0: this machine's GPUs in turn, unless one of them was asked for."""
    if device.type != "cuda" or ":" in str(device):
        return device
    return torch.device("cuda", number % torch.cuda.device_count())


def current_device(device: torch.device) -> AbstractContextManager[object]:
    """Make a GPU torch's current one for a while: other people's code allocates on `cuda`, whichever that is."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def device_label(device: torch.device) -> str:
    """What the leaderboard prints: `cpu`, or the GPU's name."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return device.type
