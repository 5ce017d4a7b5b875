"""The IDX format of MNIST and its kin, plain or gzip-compressed, read without trusting its header.

Format: LeCun, Cortes, Burges, "The MNIST database"; big-endian magic (0, 0, type, dimensions), sizes, bytes.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.core.errors import BenchError

_UINT8 = 0x08
_LARGEST = 1 << 31


def find_idx(folder: Path, name: str) -> Path | None:
    """`folder/name` or `folder/name.gz`, whichever is there."""
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    return None


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read a uint8 IDX file of that many dimensions.

    Raises:
        BenchError: the file is unreadable, truncated, too long, or of another kind.
    """
    return parse_idx(_read_bytes(path), dimensions, str(path))


def parse_idx(content: bytes, dimensions: int, name: str) -> Tensor:
    """Parse the bytes of an IDX file; `name` is for the error line."""
    header_size = 4 + 4 * dimensions
    if len(content) < header_size:
        raise BenchError(f"{name} is too short for an IDX file; fetch it again.")
    zeros, kind, stated = struct.unpack(">HBB", content[:4])
    if zeros != 0 or kind != _UINT8 or stated != dimensions:
        raise BenchError(f"{name} is not an IDX file of {dimensions}-dimensional bytes; fetch it again.")
    shape = struct.unpack(f">{dimensions}I", content[4:header_size])
    expected = math.prod(shape)
    if expected > _LARGEST or len(content) - header_size != expected:
        raise BenchError(
            f"{name} says it holds {expected} values but has {len(content) - header_size}; fetch it again."
        )
    values = np.frombuffer(content, dtype=np.uint8, offset=header_size).reshape(shape)
    return torch.from_numpy(values.copy())


def _read_bytes(path: Path) -> bytes:
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rb") as stream:
                return stream.read()
        return path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise BenchError(f"cannot read {path}: {error}; fetch it again.") from error
