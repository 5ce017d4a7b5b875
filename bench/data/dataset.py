"""A data set: images in memory or read when asked for, labels, and the digest of both."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from bench.core.errors import BenchError
from bench.core.names import require_known
from bench.data.formats.encoded import EncodedImages

_CHUNK = 256
"""Images that are looked at together where all of them are."""


@dataclass(frozen=True)
class ImageDataset:
    """One split of a data set.

    Attributes:
        store: (N, C, H, W) uint8, or float32 in [0, 1], or images that are read when asked for.
        labels: (N,) int64, below `num_classes`.
        source: where it was read from, for people.
    """

    name: str
    split: str
    store: Tensor | EncodedImages
    labels: Tensor
    class_names: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        if isinstance(self.store, Tensor):
            _require_images(self.store, self.name)
        if self.shape[0] != len(self.labels):
            raise BenchError(f"{self.name} ({self.source}) has {self.shape[0]} images but {len(self.labels)} labels.")
        if len(self.labels) == 0:
            raise BenchError(f"{self.name} ({self.source}) holds no image.")
        if int(self.labels.min()) < 0 or int(self.labels.max()) >= self.num_classes:
            raise BenchError(f"{self.name} ({self.source}) has labels outside 0..{self.num_classes - 1}.")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return tuple(self.store.shape)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def images(self) -> Tensor:
        """(N, C, H, W) uint8, all at once: for small images, or for what cannot do without."""
        return self.first(len(self))

    def first(self, count: int) -> Tensor:
        """(count, C, H, W) uint8; floats are rounded to the nearest 255th."""
        stored = self.stored(slice(count))
        return (stored * 255.0).round().to(torch.uint8) if stored.is_floating_point() else stored

    @cached_property
    def sha256(self) -> str:
        """Digest of shape, pixels and labels: equal for equal data, however it was stored.

        Where images are read when asked for, it is of their encoded bytes and of what is done to them, in place of
        the pixels: a folder and a parquet file of the same JPEGs agree, and no image has to be decoded for it.
        """
        digest = hashlib.sha256(repr(self.shape).encode())
        if isinstance(self.store, Tensor):
            for part in torch.split(self.store, _CHUNK):
                digest.update(part.contiguous().numpy().tobytes())
        else:
            for content in self.store.content():
                digest.update(content)
        digest.update(self.labels.to(torch.int64).contiguous().numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def channel_means(self) -> Tensor:
        """(C,) float32, the mean of each channel over all images, of pixels in [0, 1]."""
        total = torch.zeros(self.shape[1], dtype=torch.float64)
        for begin in range(0, len(self), _CHUNK):
            part = self.stored(slice(begin, begin + _CHUNK))
            exact = torch.float64 if part.is_floating_point() else torch.int64
            total += part.sum((0, 2, 3), dtype=exact)
        scale = 1.0 if isinstance(self.store, Tensor) and self.store.is_floating_point() else 255.0
        return total.to(torch.float32) / (scale * len(self) * self.shape[2] * self.shape[3])

    def pixels(self, indices: Tensor | slice) -> Tensor:
        """(n, C, H, W) float32 in [0, 1]; decodes only these where images are read when asked for."""
        stored = self.stored(indices)
        if stored.is_floating_point():
            return stored.clone()
        return stored.to(torch.float32).div_(255.0)

    def subset(self, classes: Sequence[str], positions: Sequence[int] | None = None) -> ImageDataset:
        """The images of these classes, which are numbered anew in the order given; images keep their order.

        Args:
            positions: where the classes stand in a data set that calls them otherwise; used if none has its name.

        Raises:
            BenchError: a class that is not there, one named twice, or fewer than two.
        """
        if len(set(classes)) != len(classes) or len(classes) < 2:
            raise BenchError(f"a subset of {self.name} needs two classes or more, each named once.")
        old = self._class_numbers(classes, positions)
        renumbered = torch.full((self.num_classes,), -1, dtype=torch.int64)
        renumbered[old] = torch.arange(len(classes))
        labels = renumbered[self.labels]
        rows = (labels >= 0).nonzero().squeeze(1)
        store = self.store[rows] if isinstance(self.store, Tensor) else self.store.take(rows)
        return replace(self, store=store, labels=labels[rows], class_names=tuple(classes))

    def _class_numbers(self, classes: Sequence[str], positions: Sequence[int] | None) -> Tensor:
        known = {name: number for number, name in enumerate(self.class_names)}
        if positions is not None and not any(name in known for name in classes) and max(positions) < len(known):
            if "0" in known:  # numbers, which folders have in the order 0, 1, 10, 11, ...
                return torch.tensor([known.get(str(position), position) for position in positions])
            if list(self.class_names) != sorted(self.class_names):  # sorted ones say nothing of their numbers
                return torch.tensor(positions)
        require_known(classes, known, f"class of {self.name} ({self.source})")
        return torch.tensor([known[name] for name in classes])

    def stored(self, indices: Tensor | slice) -> Tensor:
        """(n, C, H, W) as it is kept: uint8, or float32 in [0, 1]."""
        if isinstance(self.store, Tensor):
            return self.store[indices]
        return self.store.read(torch.arange(len(self))[indices])


def _require_images(images: Tensor, name: str) -> None:
    if images.dtype not in (torch.uint8, torch.float32) or images.dim() != 4:
        raise BenchError(f"images of {name} must be (N, C, H, W), uint8 or float32 in [0, 1].")
    if images.is_floating_point():
        for part in torch.split(images, _CHUNK):
            if not (float(part.min()) >= 0.0 and float(part.max()) <= 1.0):  # also catches NaN
                raise BenchError(f"images of {name} have pixels outside [0, 1]; divide them by 255, or store uint8.")


def require_folder(path: Path, option: str) -> Path:
    """Return `path` if it is a folder; raise BenchError naming the option otherwise."""
    if not path.is_dir():
        raise BenchError(f"{option} {path} is not a folder.")
    return path
