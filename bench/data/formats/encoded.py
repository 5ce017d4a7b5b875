"""Images that stay encoded, in files or in parquet, until they are asked for; small ones are read at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from bench.core.files import read_named
from bench.data.formats.decoding import Preparation, decode

SMALL = 64
"""Images of sides up to this are kept in memory, decoded: 12 KB each, and training asks for them again and again."""


class EncodedSource(Protocol):
    """Encoded images by their number."""

    def __len__(self) -> int: ...

    def content(self, number: int) -> bytes:
        """The bytes of one image file; raises BenchError."""

    def name(self, number: int) -> str:
        """What an error line calls it."""


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """One file an image."""

    paths: Sequence[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def content(self, number: int) -> bytes:
        return read_named(self.paths[number], "image")

    def name(self, number: int) -> str:
        return str(self.paths[number])


@dataclass(frozen=True, slots=True)
class EncodedImages:
    """Images that are decoded when asked for, and not kept, so that memory does not grow with their number.

    Attributes:
        rows: (N,) int64, which images of the source, in which order.
        size: height and width that every image must have once it is prepared.
    """

    source: EncodedSource
    rows: Tensor
    preparation: Preparation
    size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return (len(self.rows), self.preparation.channels, *self.size)

    def read(self, rows: Tensor) -> Tensor:
        """(n, C, H, W) uint8 of the rows (n,) int64; raises BenchError for an image that cannot be read."""
        images = np.empty((len(rows), *self.size, self.preparation.channels), dtype=np.uint8)
        for position, number in enumerate(self.rows[rows].tolist()):
            name = self.source.name(number)
            images[position] = decode(self.source.content(number), self.preparation, name, self.size)
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    def take(self, rows: Tensor) -> EncodedImages:
        """These rows only, in this order; reads nothing."""
        return replace(self, rows=self.rows[rows])

    def content(self) -> Iterator[bytes]:
        """What the digest is of: all that decides the pixels, image by image."""
        yield repr(self.preparation).encode()
        for number in self.rows.tolist():
            yield self.source.content(number)


def open_images(source: EncodedSource, preparation: Preparation, image_size: int | None) -> Tensor | EncodedImages:
    """The images of a source: decoded at once where they are small, when asked for elsewhere.

    Args:
        image_size: the side every image must have if the preparation leaves sizes as they are; None takes the first
            image's.

    Raises:
        BenchError: an unreadable image, images of several sizes or of more than 8 bits, as far as they are read here.
    """
    side = preparation.crop or image_size or decode(source.content(0), preparation, source.name(0)).shape[0]
    store = EncodedImages(source, torch.arange(len(source)), preparation, (side, side))
    return store.read(torch.arange(len(source))) if side <= SMALL else store
