"""Reading an ImageFolder: `<root>/<class>/<image>`, classes in sorted order as torchvision has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.core.errors import BenchError

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm"))
_EIGHT_BIT_MODES = frozenset(("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"))


def read_image_folder(
    root: Path, in_channels: int | None, image_size: int | None
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Read every image below `root`.

    The images are interleaved by class (first of each class, second of each class, ...), so that the first N are
    balanced; inside a class they stand in the order of their names.

    Args:
        in_channels: 1 or 3; None takes 3.
        image_size: the side every image must have; None takes the first image's.

    Returns:
        images (N, C, H, W) uint8, labels (N,) int64, class names.

    Raises:
        BenchError: no class folder, an unreadable image, images of several sizes or of more than 8 bits.
    """
    classes = tuple(sorted(folder.name for folder in root.iterdir() if folder.is_dir()))
    if not classes:
        raise BenchError(f"{root} has no class folders; expected {root}/<class>/<image>.")
    ordered = _interleave(root, classes)
    if not ordered:
        raise BenchError(f"{root} has class folders but no images ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    mode = "L" if in_channels == 1 else "RGB"
    first = _decode(ordered[0][0], mode)
    side = image_size if image_size is not None else first.shape[0]
    images = np.empty((len(ordered), side, side, 1 if mode == "L" else 3), dtype=np.uint8)
    for position, (path, _) in enumerate(ordered):
        pixels = _decode(path, mode)
        if pixels.shape[:2] != (side, side):
            size = f"{pixels.shape[1]}x{pixels.shape[0]}"
            raise BenchError(f"{path} is {size}, expected {side}x{side}; resize the folder's images first.")
        images[position] = pixels.reshape(side, side, -1)
    labels = torch.tensor([label for _, label in ordered], dtype=torch.int64)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels, classes


def _interleave(root: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    ranked: list[tuple[int, int, Path]] = []
    for label, name in enumerate(classes):
        files = sorted(path for path in (root / name).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        ranked.extend((rank, label, path) for rank, path in enumerate(files))
    ranked.sort(key=lambda entry: entry[:2])
    return [(path, label) for _, label, path in ranked]


def _decode(path: Path, mode: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.mode not in _EIGHT_BIT_MODES:
                raise BenchError(
                    f"{path} has more than 8 bits a channel (mode {image.mode}), its pixels would lie outside [0, 1]; "
                    "convert it to 8 bits."
                )
            return np.asarray(image.convert(mode), dtype=np.uint8)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError) as error:
        raise BenchError(f"cannot read image {path}: {error}.") from error
