"""A small set of common corruptions, each at five severities, from torchvision's own operations.

The kinds follow Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and
perturbations", ICLR 2019; the operations are torchvision's, so that strengths differ from ImageNet-C's and CIFAR-10-C's
and accuracies must not be compared with theirs. Noise is keyed by seed and example.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bench.core.keyed_random import keyed_normal, keyed_uniform

Corruption = Literal[
    "gaussian_noise", "shot_noise", "impulse_noise", "gaussian_blur", "pixelate", "jpeg", "contrast", "brightness",
    "rotation",
]  # fmt: skip
SEVERITIES = (1, 2, 3, 4, 5)


def corrupt(images: Tensor, example_ids: Tensor, corruption: Corruption, severity: int, seed: int = 0) -> Tensor:
    """Corrupt a batch.

    Args:
        images: (N, C, H, W) float32 in [0, 1].
        example_ids: (N,) key the noise, together with `seed`.
        severity: 1 to 5.

    Returns:
        (N, C, H, W) float32 in [0, 1].
    """
    return _FUNCTIONS[corruption](images, severity - 1, example_ids, seed).clamp(0.0, 1.0)


def _gaussian_noise(images: Tensor, level: int, ids: Tensor, seed: int) -> Tensor:
    noise = keyed_normal(seed, "corruption/gaussian_noise", ids, images.shape[1:])
    return images + (0.04, 0.08, 0.12, 0.18, 0.26)[level] * noise


def _shot_noise(images: Tensor, level: int, ids: Tensor, seed: int) -> Tensor:
    """Photon counting with a normal in place of the Poisson law, whose mean and variance it keeps."""
    photons = (60.0, 25.0, 12.0, 5.0, 3.0)[level]
    return images + (images / photons).sqrt() * keyed_normal(seed, "corruption/shot_noise", ids, images.shape[1:])


def _impulse_noise(images: Tensor, level: int, ids: Tensor, seed: int) -> Tensor:
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[level]
    chance = keyed_uniform(seed, "corruption/impulse_noise", ids, images.shape[1:])
    salted = torch.where(chance > 1.0 - share / 2, 1.0, images)
    return torch.where(chance < share / 2, 0.0, salted)


def _gaussian_blur(images: Tensor, level: int, ids: Tensor, seed: int) -> Tensor:  # noqa: ARG001
    from torchvision.transforms.v2 import functional as tv  # seconds to import; most runs do without

    sigma = (0.4, 0.6, 0.8, 1.1, 1.5)[level] * min(images.shape[-2:]) / 28  # the window is never larger than the image
    blurred: Tensor = tv.gaussian_blur(images, [2 * int(3 * sigma + 0.5) + 1] * 2, [sigma, sigma])
    return blurred


def _pixelate(images: Tensor, level: int, ids: Tensor, seed: int) -> Tensor:  # noqa: ARG001
    from torchvision.transforms.v2 import functional as tv  # seconds to import; most runs do without

    share = (0.85, 0.7, 0.55, 0.45, 0.35)[level]
    height, width = images.shape[-2:]
    small = [max(1, round(share * height)), max(1, round(share * width))]
    shrunk = tv.resize(images, small, antialias=True)
    grown: Tensor = tv.resize(shrunk, [height, width], interpolation=tv.InterpolationMode.NEAREST)
    return grown


def _jpeg(images: Tensor, level: int, ids: Tensor, seed: int) -> Tensor:  # noqa: ARG001
    quality = (60, 40, 25, 15, 8)[level]
    planes = images if images.shape[1] in (1, 3) else images.flatten(0, 1).unsqueeze(1)
    pixels = (planes * 255).round().to(torch.uint8).cpu().movedim(1, -1).numpy()
    coded = torch.from_numpy(np.stack([_through_jpeg(image, quality) for image in pixels]))
    return coded.movedim(-1, 1).to(images.device).float().div_(255.0).reshape(images.shape)


def _through_jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """(H, W, 1 or 3) uint8 in and out."""
    stream = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream), dtype=np.uint8).reshape(image.shape)


def _contrast(images: Tensor, level: int, ids: Tensor, seed: int) -> Tensor:  # noqa: ARG001
    mean = images.mean((-2, -1), keepdim=True)
    return mean + (0.75, 0.6, 0.45, 0.3, 0.2)[level] * (images - mean)


def _brightness(images: Tensor, level: int, ids: Tensor, seed: int) -> Tensor:  # noqa: ARG001
    return images + (0.1, 0.2, 0.3, 0.4, 0.5)[level]


def _rotation(images: Tensor, level: int, ids: Tensor, seed: int) -> Tensor:  # noqa: ARG001
    from torchvision.transforms.v2 import functional as tv  # seconds to import; most runs do without

    rotated: Tensor = tv.rotate(
        images, (5.0, 10.0, 15.0, 20.0, 30.0)[level], interpolation=tv.InterpolationMode.BILINEAR
    )
    return rotated


_FUNCTIONS: dict[Corruption, Callable[[Tensor, int, Tensor, int], Tensor]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "gaussian_blur": _gaussian_blur,
    "pixelate": _pixelate,
    "jpeg": _jpeg,
    "contrast": _contrast,
    "brightness": _brightness,
    "rotation": _rotation,
}
