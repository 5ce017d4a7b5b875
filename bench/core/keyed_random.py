"""Random numbers keyed by (seed, stream, example id), the same in every batch and shard and on every device.

A counter-based generator (SplitMix64's finaliser over key + counter), written with wrapping int64 tensor arithmetic:
no state to keep, no loop over examples, bit-identical on CPU and GPU. Not for cryptography.
Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """The int64 with the same bits as the uint64 `value`."""
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Logical (not sign-extending) right shift of int64."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    value = (value ^ _shift_right(value, 30)) * _FIRST
    value = (value ^ _shift_right(value, 27)) * _SECOND
    return value ^ _shift_right(value, 31)


def stream_key(*parts: object) -> int:
    """A 64-bit key from any printable parts, e.g. `stream_key("start", "linf", 0)`."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def keyed_uniform(
    seed: int, stream: str, example_ids: Tensor, shape: Sequence[int], extra: Tensor | None = None
) -> Tensor:
    """Uniform numbers in [0, 1), one block per example.

    Args:
        seed: the run's seed.
        stream: what the numbers are for; two streams are independent.
        example_ids: (N,) int64.
        shape: the shape of one example's block.
        extra: (N,) int64, a further key per example such as the number of the restart.

    Returns:
        (N, *shape) float32 on the device of `example_ids`.
    """
    count = math.prod(shape)
    keys = _mix(example_ids.to(torch.int64) * _GOLDEN + stream_key(seed, stream))
    if extra is not None:
        keys = _mix(keys + extra.to(torch.int64) * _SECOND)
    counters = torch.arange(1, count + 1, device=keys.device, dtype=torch.int64) * _GOLDEN
    bits = _shift_right(_mix(keys[:, None] + counters), 40)
    return (bits.to(torch.float32) * (1.0 / (1 << 24))).view(len(keys), *shape)


def keyed_normal(
    seed: int, stream: str, example_ids: Tensor, shape: Sequence[int], extra: Tensor | None = None
) -> Tensor:
    """Standard normal numbers, one block per example (Box-Muller); arguments as in `keyed_uniform`."""
    radius = keyed_uniform(seed, stream + "/radius", example_ids, shape, extra=extra)
    angle = keyed_uniform(seed, stream + "/angle", example_ids, shape, extra=extra)
    return torch.sqrt(-2.0 * torch.log1p(-radius)) * torch.cos(2.0 * math.pi * angle)
