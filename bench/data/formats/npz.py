"""NumPy archives (.npz) of images and labels, read without pickle and without trusting their headers.

Accepted names of the arrays: `images` and `labels`, `x` and `y`, or for an archive of both splits `x_test` and `y_test`
(Keras) or `test_images` and `test_labels` (MedMNIST), the same with `train`; `class_names` if there are any.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.core.errors import BenchError, reason_of
from bench.core.memory import free_memory

_SPLIT_PAIRS = (("x_{split}", "y_{split}"), ("{split}_images", "{split}_labels"), ("{split}_x", "{split}_y"))
_PAIRS = (*_SPLIT_PAIRS, ("images", "labels"), ("x", "y"), ("data", "labels"))
_LARGEST = 1 << 36
"""Bytes of one array, unpacked."""
_LONGEST_HEADER = 1 << 16
_UNREADABLE = (
    OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile, MemoryError, RuntimeError, SyntaxError,
    TypeError, OverflowError,
)  # fmt: skip
"""Also what is raised for a member that is encrypted, packed otherwise, or has a senseless header."""


def read_npz(path: Path, split: str) -> tuple[Tensor, Tensor, tuple[str, ...] | None]:
    """Read one split of an archive, or all of an archive that has no splits.

    Args:
        split: `train` or `test`; chooses among arrays that carry a split in their names.

    Returns:
        images (N, C, H, W) uint8, or float32 where they are floats other than whole 255ths; labels (N,) int64; class
        names, if the archive has them.

    Raises:
        BenchError: no such archive, arrays that are missing, of other kinds or shapes, or that need pickle.
    """
    arrays = read_arrays(
        path, lambda members: _pair(members, split, path) + (["class_names"] if "class_names" in members else [])
    )
    images, labels, *names = arrays.values()
    return _images(images, path), _labels(labels, path), _class_names(names[0], path) if names else None


def names_split(path: Path, split: str) -> bool:
    """Whether the names of an archive's arrays say which are of this split; True where it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return True
    return any(members.issuperset(name.format(split=split) for name in pair) for pair in _SPLIT_PAIRS)


def read_arrays(path: Path, choose: Callable[[set[str]], list[str]]) -> dict[str, NDArray[Any]]:
    """The arrays that `choose` names, given the names of all; raises BenchError for what cannot be read or trusted."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")}
            wanted = choose(members)
            if missing := [name for name in wanted if name not in members]:
                raise BenchError(f"{path} has no array `{missing[0]}`; its arrays: {', '.join(sorted(members))[:200]}.")
            for name in wanted:
                _check_size(archive, name, path)
        with np.load(path, allow_pickle=False) as stored:
            return {name: np.asarray(stored[name]) for name in wanted}
    except _UNREADABLE as error:
        raise BenchError(f"cannot read {path} as a NumPy archive: {reason_of(error)}.") from error


def _pair(members: set[str], split: str, path: Path) -> list[str]:
    for pair in _PAIRS:
        names = [name.format(split=split) for name in pair]
        if members.issuperset(names):
            return names
    found = ", ".join(sorted(members)[:8]) or "none"
    raise BenchError(f"{path} has no arrays `images` and `labels`, `x` and `y`, or x_{split} and y_{split}: {found}.")


def _check_size(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    """Read the header alone, before memory is taken for what it announces."""
    info = archive.getinfo(f"{name}.npy")
    with archive.open(info) as member:
        stream = io.BytesIO(member.read(_LONGEST_HEADER))
    shape, _, dtype = _header(stream)
    header = stream.tell()
    if dtype.hasobject:
        raise BenchError(f"{path} holds Python objects in {name}, which only pickle reads; store plain numbers.")
    size = math.prod(shape) * dtype.itemsize
    if size > _LARGEST or size != info.file_size - header:
        raise BenchError(
            f"{path} says that {name} has {size} bytes, but holds {info.file_size - header}; store it anew."
        )
    free = free_memory()
    if free is not None and size > free:
        raise BenchError(
            f"{path} unpacks to {size / 2**30:.1f} GiB in {name}, and {free / 2**30:.1f} GiB of memory are free; store "
            "the images as files, which are read when asked for."
        )


def _header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"array format {version}")


def _images(images: NDArray[Any], path: Path) -> Tensor:
    shape = images.shape
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and shape[3] in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    elif images.ndim != 4 or shape[1] not in (1, 3):
        raise BenchError(
            f"{path} has images of shape {shape}; store (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels."
        )
    if 0 in images.shape:
        raise BenchError(f"{path} holds no image.")
    if images.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(images))
    if images.dtype.kind != "f":
        raise BenchError(f"{path} has images of type {images.dtype}; store uint8, or floats in [0, 1].")
    floats = np.ascontiguousarray(images, dtype=np.float32)
    low, high = float(floats.min()), float(floats.max())
    if not (low >= 0.0 and high <= 1.0):  # also catches NaN
        raise BenchError(
            f"{path} has pixels from {low:.4g} to {high:.4g}; store uint8, or floats in [0, 1], not normalised."
        )
    whole = np.rint(floats * 255.0)
    # as uint8 where every pixel is a whole 255th, so that the digest is that of the same images stored as uint8
    return torch.from_numpy(whole.astype(np.uint8) if np.abs(floats * 255.0 - whole).max() < 1e-3 else floats)


def _labels(labels: NDArray[Any], path: Path) -> Tensor:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise BenchError(
            f"{path} has labels of shape {labels.shape} and type {labels.dtype}; store whole numbers, one an image."
        )
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < 1 << 20):
        raise BenchError(f"{path} has labels from {labels.min()} to {labels.max()}; number the classes from 0.")
    return torch.from_numpy(labels.astype(np.int64))


def _class_names(names: NDArray[Any], path: Path) -> tuple[str, ...]:
    if names.ndim != 1 or names.dtype.kind != "U":
        raise BenchError(f"{path} has class_names of type {names.dtype}; store one string a class.")
    return tuple(str(name) for name in names)
