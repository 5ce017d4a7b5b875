"""A data set in memory: uint8 images, labels, and the digest of both."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from bench.core.errors import BenchError


@dataclass(frozen=True)
class ImageDataset:
    """One split of a data set.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) int64, below `num_classes`.
        source: where it was read from, for people.
    """

    name: str
    split: str
    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            raise BenchError(f"images of {self.name} must be (N, C, H, W) uint8, pixels in [0, 1] are made from them.")
        if len(self.images) != len(self.labels):
            raise BenchError(
                f"{self.name} ({self.source}) has {len(self.images)} images but {len(self.labels)} labels."
            )
        if len(self.labels) == 0:
            raise BenchError(f"{self.name} ({self.source}) holds no image.")
        if int(self.labels.min()) < 0 or int(self.labels.max()) >= self.num_classes:
            raise BenchError(f"{self.name} ({self.source}) has labels outside 0..{self.num_classes - 1}.")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @cached_property
    def sha256(self) -> str:
        """Digest of shape, pixels and labels: equal for equal data, however it was stored."""
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        digest.update(self.images.contiguous().numpy().tobytes())
        digest.update(self.labels.to(torch.int64).contiguous().numpy().tobytes())
        return digest.hexdigest()

    def pixels(self, indices: Tensor | slice) -> Tensor:
        """(n, C, H, W) float32 in [0, 1]."""
        return self.images[indices].to(torch.float32).div_(255.0)


def require_folder(path: Path, option: str) -> Path:
    """Return `path` if it is a folder; raise BenchError naming the option otherwise."""
    if not path.is_dir():
        raise BenchError(f"{option} {path} is not a folder.")
    return path
