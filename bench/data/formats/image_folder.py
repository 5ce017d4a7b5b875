"""Reading an ImageFolder: `<root>/<class>/**/<image>`, classes and files in the order in which torchvision has them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from bench.core.errors import BenchError
from bench.data.formats.decoding import Preparation
from bench.data.formats.encoded import EncodedImages, ImageFiles, open_images

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"))
"""Torchvision's `IMG_EXTENSIONS`."""


def read_image_folder(
    root: Path, preparation: Preparation, image_size: int | None
) -> tuple[Tensor | EncodedImages, Tensor, tuple[str, ...]]:
    """The images below `root`: small ones in memory, others read when asked for.

    The images are interleaved by class (first of each class, second of each class, ...), so that the first N are
    balanced; inside a class they stand in the order of their folders, then of their names. What is no image by its name
    is left out, and said.

    Args:
        image_size: the side every image must have if the preparation leaves sizes; None takes the first image's.

    Returns:
        images (N, C, H, W), labels (N,) int64, class names.

    Raises:
        BenchError: no class folder, an unreadable image, images of several sizes or of more than 8 bits.
    """
    classes = tuple(sorted(folder.name for folder in root.iterdir() if folder.is_dir() and folder.name[0] != "."))
    if not classes:
        raise BenchError(f"{root} has no class folders; expected {root}/<class>/<image>.")
    left_out: list[Path] = [path for path in sorted(root.iterdir()) if path.is_file()]
    ordered = _interleave(root, classes, left_out)
    if not ordered:
        raise BenchError(f"{root} has class folders but no images ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    _say_what_is_missing(root, classes, {label for _, label in ordered}, left_out)
    labels = torch.tensor([label for _, label in ordered], dtype=torch.int64)
    images = open_images(ImageFiles([path for path, _ in ordered]), preparation, image_size)
    return images, labels, classes


def _interleave(root: Path, classes: tuple[str, ...], left_out: list[Path]) -> list[tuple[Path, int]]:
    """(file, label) of all images; other files are added to `left_out`."""
    ranked: list[tuple[int, int, Path]] = []
    for label, name in enumerate(classes):
        files = list(_files(root / name))
        images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
        left_out += [path for path in files if path.suffix.lower() not in IMAGE_SUFFIXES]
        ranked.extend((rank, label, path) for rank, path in enumerate(images))
    ranked.sort(key=lambda entry: entry[:2])
    return [(path, label) for _, label, path in ranked]


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, as torchvision goes through them; links are followed, but not in circles."""
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = Path(place).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        found.append((place, sorted(names)))
    for place, names in sorted(found):
        yield from (Path(place) / name for name in names)


def _say_what_is_missing(root: Path, classes: tuple[str, ...], seen: set[int], left_out: list[Path]) -> None:
    shown = [path for path in left_out if not path.name.startswith(".")]
    if shown:
        logger.warning("%s: %d files are no images and were left out, e.g. %s", root, len(shown), shown[0])
    empty = [name for label, name in enumerate(classes) if label not in seen]
    if empty:
        logger.warning("%s: %d of %d classes have no image, e.g. %s", root, len(empty), len(classes), empty[0])
