"""Weights from elsewhere: safetensors and PyTorch checkpoints, read so that no code in the file can run."""

from __future__ import annotations

import logging
import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as format_safetensors
from torch import Tensor, nn

from bench.catalog.cards import Weights
from bench.core.errors import BenchError, reason_of
from bench.core.files import open_regular, sha256_bytes

logger = logging.getLogger(__name__)

_INNER_KEYS = ("state_dict", "model_state_dict", "model", "net", "last")
"""Where checkpoints keep their state dict when they hold more than that."""
_DAMAGED = (
    RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError, ImportError,
    MemoryError, RecursionError, OverflowError, struct.error, zipfile.BadZipFile,
)  # fmt: skip


def read_state(path: Path, *, trust: bool = False) -> dict[str, Tensor]:
    """The state dict in a weights file, by its own names (`module.` of DataParallel taken off).

    Args:
        path: `.safetensors`, or anything that torch.save wrote.
        trust: unpickle objects too, which runs the code that the file names.

    Raises:
        BenchError: unreadable, holds more than tensors and is not trusted, or holds no state dict.
    """
    try:
        with open_regular(path) as stream:
            if path.suffix == ".safetensors":
                return parse_state(stream.read(), path)
            return _tensors(_load_checkpoint(stream, path, trust), path)
    except OSError as error:
        raise BenchError(f"cannot read the weights {path}: {error.strerror or error}.") from error


def parse_state(content: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors in the bytes of a safetensors file; raises BenchError."""
    try:
        return parse_safetensors(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise BenchError(
            f"weights {path} are not a readable safetensors file ({error}); nothing was loaded."
        ) from error


def state_bytes(net: nn.Module) -> bytes:
    """A net's state as safetensors, always the same bytes for the same state: what the digest is taken of."""
    return format_safetensors(dict(pair for item in net.state_dict().items() for pair in _tensors_in(*item)))


def weights_of(net: nn.Module) -> Weights:
    """What a card says of a net's weights: their digest, and how many parameters; a net without any counts as one."""
    return Weights(
        sha256=sha256_bytes(state_bytes(net)), parameters=max(1, sum(one.numel() for one in net.parameters()))
    )


def _tensors_in(key: str, value: object) -> Iterator[tuple[str, Tensor]]:
    """A value of a state dict as plain tensors: quantised layers keep packed weights and types in theirs."""
    if isinstance(value, Tensor):
        plain = value.detach().cpu()
        plain = plain.dequantize() if plain.is_quantized else plain.to_dense()
        yield key, plain.contiguous().clone()
    elif isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, one in items:
            yield from _tensors_in(f"{key}.{name}", one)
    else:
        said = repr(value) if isinstance(value, str | int | float | torch.dtype | None) else type(value).__name__
        yield key, torch.frombuffer(bytearray(said.encode()), dtype=torch.uint8)


def _load_checkpoint(stream: BinaryIO, path: Path, trust: bool) -> Any:
    try:
        _refuse_packed(stream, path)
        return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not trust:
            raise BenchError(
                f"weights {path} are damaged, or hold more than tensors; in the second case opening them runs code "
                "that the file brings along. Save the state dict alone or, if you trust the file's author, allow it.",
                option="trust_weights",
            ) from error
    except _DAMAGED as error:
        raise _unreadable(path, error) from error
    _warn(path)
    stream.seek(0)
    try:
        return torch.load(stream, map_location="cpu", weights_only=False)
    except (pickle.UnpicklingError, *_DAMAGED) as error:
        raise _unreadable(path, error) from error


def _refuse_packed(stream: BinaryIO, path: Path) -> None:
    """torch.save packs nothing; a packed archive may be a thousand times larger than its file."""
    if zipfile.is_zipfile(stream):
        with zipfile.ZipFile(stream) as archive:
            packed = any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist())
        if packed:
            raise BenchError(f"weights {path} are packed, which torch.save never does; unpack and save them anew.")
    stream.seek(0)


@cache
def _warn(path: Path) -> None:
    """Once a file and process, however often a net is built from it."""
    logger.warning("unpickling %s, which runs the code that it names, as was allowed", path)


def _unreadable(path: Path, error: BaseException) -> BenchError:
    reason = reason_of(error)
    return BenchError(f"weights {path} cannot be read ({type(error).__name__}: {reason}); nothing was loaded.")


def _tensors(loaded: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(loaded, nn.Module):
        loaded = loaded.state_dict()
    for key in _INNER_KEYS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping | nn.Module):
            return _tensors(loaded[key], path)
    if not isinstance(loaded, Mapping) or not loaded:
        raise BenchError(f"weights {path} hold a {type(loaded).__name__}, not a state dict.")
    foreign = [key for key, value in loaded.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
    if foreign:
        raise BenchError(f"weights {path} hold no state dict: {str(foreign[0])[:60]!r} is not a named tensor.")
    if all(key.startswith("module.") for key in loaded):
        return {key.removeprefix("module."): value for key, value in loaded.items()}
    return dict(loaded)
