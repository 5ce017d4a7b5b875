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
from bench.core.files import open_regular

_UINT8 = 0x08
_LARGEST = 1 << 31


def find_idx(folder: Path, name: str) -> Path | None:
    """`folder/name` or `folder/name.gz`, whichever is there."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read a uint8 IDX file of that many dimensions; raises BenchError: unreadable, too short or long, another kind."""
    try:
        with open_regular(path) as file, gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file as stream:
            header = stream.read(4 + 4 * dimensions)
            # one byte more than it announces, where there is more: a small file may unpack to a large one
            content = header + stream.read(math.prod(_shape(header, dimensions, str(path))) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BenchError(f"cannot read {path}: {error}; fetch it again.") from error
    return parse_idx(content, dimensions, str(path))


def parse_idx(content: bytes, dimensions: int, name: str) -> Tensor:
    """Parse the bytes of an IDX file; `name` is for the error line."""
    header_size = 4 + 4 * dimensions
    shape = _shape(content[:header_size], dimensions, name)
    expected, found = math.prod(shape), len(content) - header_size
    if found != expected:
        raise BenchError(
            f"{name} says it holds {expected} values but has {found if found < expected else 'more'}; fetch it again."
        )
    values = np.frombuffer(content, dtype=np.uint8, offset=header_size).reshape(shape)
    return torch.from_numpy(values.copy())


def _shape(header: bytes, dimensions: int, name: str) -> tuple[int, ...]:
    if len(header) < 4 + 4 * dimensions:
        raise BenchError(f"{name} is too short for an IDX file; fetch it again.")
    zeros, kind, stated, *shape = struct.unpack(f">HBB{dimensions}I", header)
    if zeros != 0 or kind != _UINT8 or stated != dimensions or math.prod(shape) > _LARGEST:
        raise BenchError(f"{name} is not an IDX file of {dimensions}-dimensional bytes; fetch it again.")
    return tuple(shape)
