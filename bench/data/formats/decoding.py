"""From the bytes of an image file to pixels: decoding, and the usual resize and crop; nothing of data sets."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from bench.core.errors import BenchError, reason_of

_EIGHT_BIT_MODES = frozenset(("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"))
_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "DIB", "WEBP", "TIFF", "GIF", "JPEG2000")
"""Pillow knows more: of EPS it runs a program."""
_LONGEST_SIDE = 1 << 15


@dataclass(frozen=True, slots=True)
class Preparation:
    """What is done to an image once it is decoded, as torchvision's Resize and CenterCrop do it to a PIL image.

    Attributes:
        channels: 3, or 1 for grey.
        resize: the shorter side after resizing (antialiased); None leaves it.
        crop: side of the square that is cut from the middle; None leaves the image whole.
    """

    channels: int = 3
    resize: int | None = None
    crop: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


def decode(
    content: bytes, preparation: Preparation, name: str, size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """(H, W, C) uint8.

    Args:
        content: an image file of any kind that Pillow reads; an orientation in its EXIF data is not applied, as in
            torchvision.
        name: for the error line.
        size: height and width that it must have if the preparation leaves sizes; asked before anything is unpacked.

    Raises:
        BenchError: no image, another size, more than 8 bits a channel, or smaller than the crop.
    """
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            if image.mode not in _EIGHT_BIT_MODES:
                raise BenchError(
                    f"{name} has more than 8 bits a channel (mode {image.mode}), its pixels would lie outside [0, 1]; "
                    "convert it to 8 bits."
                )
            if size is not None and preparation.crop is None and (image.height, image.width) != size:
                raise BenchError(
                    f"{name} is {image.width}x{image.height}, expected {size[1]}x{size[0]}; resize the images first, "
                    "or set `resize` and `crop` in a TOML file of the data set."
                )
            pixels = _prepare(image.convert("L" if preparation.channels == 1 else "RGB"), preparation, name)
    except UnidentifiedImageError as error:
        raise BenchError(f"{name} is no image that Pillow knows; take it out of the data set.") from error
    except (OSError, Image.DecompressionBombError, SyntaxError, ValueError, TypeError) as error:
        raise BenchError(f"cannot read image {name}: {reason_of(error)}.") from error
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _prepare(image: Image.Image, preparation: Preparation, name: str) -> NDArray[np.uint8]:
    width, height = image.size
    if preparation.resize is not None:
        shorter, longer = preparation.resize, int(preparation.resize * max(width, height) / min(width, height))
        if longer > _LONGEST_SIDE:
            raise BenchError(f"{name} is {width}x{height}, too long to resize its shorter side to {shorter}.")
        width, height = (shorter, longer) if width <= height else (longer, shorter)
        image = image.resize((width, height), Image.Resampling[preparation.interpolation.upper()])
    if preparation.crop is not None:
        side = preparation.crop
        if min(width, height) < side:
            raise BenchError(f"{name} is {width}x{height}, smaller than the crop of {side}; set `resize` as well.")
        left, top = round((width - side) / 2.0), round((height - side) / 2.0)
        image = image.crop((left, top, left + side, top + side))
    return np.asarray(image, dtype=np.uint8)
