"""Reading an ImageFolder: `<root>/<class>/<image>`, classes in sorted order as torchvision has them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from bench.core.errors import BenchError
from bench.data.dataset import ImageStore
from bench.data.decoding import Preparation
from bench.data.encoded import ImageFiles, open_images

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm"))


def read_image_folder(
    root: Path, preparation: Preparation, image_size: int | None
) -> tuple[Tensor | ImageStore, Tensor, tuple[str, ...]]:
    """The images below `root`: small ones in memory, others read when asked for.

    The images are interleaved by class (first of each class, second of each class, ...), so that the first N are
    balanced; inside a class they stand in the order of their names.

    Args:
        image_size: the side every image must have if the preparation leaves sizes; None takes the first image's.

    Returns:
        images (N, C, H, W), labels (N,) int64, class names.

    Raises:
        BenchError: no class folder, an unreadable image, images of several sizes or of more than 8 bits.
    """
    classes = tuple(sorted(folder.name for folder in root.iterdir() if folder.is_dir()))
    if not classes:
        raise BenchError(f"{root} has no class folders; expected {root}/<class>/<image>.")
    ordered = _interleave(root, classes)
    if not ordered:
        raise BenchError(f"{root} has class folders but no images ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    labels = torch.tensor([label for _, label in ordered], dtype=torch.int64)
    images = open_images(ImageFiles([path for path, _ in ordered]), preparation, image_size)
    return images, labels, classes


def _interleave(root: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    ranked: list[tuple[int, int, Path]] = []
    for label, name in enumerate(classes):
        files = sorted(path for path in (root / name).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        ranked.extend((rank, label, path) for rank, path in enumerate(files))
    ranked.sort(key=lambda entry: entry[:2])
    return [(path, label) for _, label, path in ranked]
