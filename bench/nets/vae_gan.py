"""The VAE-GAN of the Bridging paper (section 2.1): encoder, generator, discriminator. No classifier.

Convolutions follow TensorFlow's SAME padding, batch normalisation comes after the activation with TensorFlow's
constants. Pixels are in [-1, 1] inside and in [0, 1] outside. Not as in the paper's code: spectral normalisation, of
the 32 x 32 discriminator alone, is torch's, which divides a kernel, seen as a matrix, by its largest singular value.
There the power iteration is on the convolution itself, and it is divided only where that norm is above 1.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from bench.nets.layers import glorot


class VaeGan(nn.Module):
    """Encoder x -> (mean, log variance) of a code, generator code -> image, discriminator image -> logit.

    Args:
        image_size: 28 gives the paper's net for MNIST and Fashion-MNIST, 32 that for CIFAR-10.
        code_size: length of the code.
        width: factor on all channel counts; 1 is the paper's.
    """

    def __init__(self, *, in_channels: int, image_size: int, code_size: int, width: float = 1.0) -> None:
        super().__init__()
        if image_size not in (28, 32):
            raise ValueError(f"image_size must be 28 or 32, not {image_size}")
        if not 0 < width <= 1:
            raise ValueError(f"width must be in (0, 1], not {width}")
        self.code_size = code_size
        parts = _grey_parts if image_size == 28 else _colour_parts
        self.encoder, self.generator, self.discriminator = parts(in_channels, code_size, width)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) in [0, 1] -> mean and log variance of the code, (N, code_size) each."""
        mean, log_variance = self.encoder(2.0 * images - 1.0).chunk(2, dim=1)
        return mean, log_variance

    def generate(self, codes: Tensor) -> Tensor:
        """(N, code_size) -> (N, C, H, W) in [0, 1]."""
        images: Tensor = 0.5 * (self.generator(codes) + 1.0)
        return images

    def discriminate(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] -> logits (N,), high for real images."""
        logits: Tensor = self.discriminator(2.0 * images - 1.0).squeeze(1)
        return logits

    def project(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """One encode-decode pass, with the mean code, or with the sampled code of the paper if `noise` is given.

        Args:
            images: (N, C, H, W) in [0, 1].
            noise: (N, code_size) standard normal numbers.
        """
        mean, log_variance = self.encode(images)
        return self.generate(mean if noise is None else mean + torch.exp(0.5 * log_variance) * noise)

    forward = project


class _SameConv(nn.Module):
    """A convolution padded as TensorFlow's SAME: where the total padding is odd, one more row below and right."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, *, spectral: bool = False) -> None:
        super().__init__()
        convolution = glorot(nn.Conv2d(inputs, outputs, kernel, stride))
        self.convolution = parametrizations.spectral_norm(convolution) if spectral else convolution
        self.kernel, self.stride = kernel, stride

    def forward(self, images: Tensor) -> Tensor:
        side = images.shape[-1]
        total = max(0, (-(-side // self.stride) - 1) * self.stride + self.kernel - side)
        before, after = total // 2, total - total // 2
        padded: Tensor = self.convolution(F.pad(images, (before, after, before, after)))
        return padded


_norm, _norm1 = (partial(kind, eps=1e-3, momentum=0.01) for kind in (nn.BatchNorm2d, nn.BatchNorm1d))


def _linear(inputs: int, outputs: int) -> nn.Linear:
    return glorot(nn.Linear(inputs, outputs))


def _up(inputs: int, outputs: int, stride: int, padding: int) -> nn.ConvTranspose2d:
    return glorot(nn.ConvTranspose2d(inputs, outputs, 4, stride, padding))


def _encoder(in_channels: int, channels: list[int], kernel: int, code_size: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise([in_channels, *channels]):
        layers += [_SameConv(inputs, outputs, kernel, 2), nn.ReLU(), _norm(outputs)]
    return nn.Sequential(*layers, nn.Flatten(), _linear(channels[-1] * 4 * 4, 2 * code_size), _norm1(2 * code_size))


def _grey_parts(in_channels: int, code_size: int, width: float) -> tuple[nn.Module, nn.Module, nn.Module]:
    """28 x 28: the encoder 28-14-7-4, the generator 2-4-7-14-28, the discriminator 28-14-7-4-2."""
    few, some, many, most = (max(4, round(width * count)) for count in (32, 64, 128, 256))
    generator = nn.Sequential(
        _linear(code_size, 4 * most), nn.ReLU(), _norm1(4 * most), nn.Unflatten(1, (most, 2, 2)),
        _up(most, most, 2, 1), nn.ReLU(), _norm(most),
        _up(most, many, 1, 0), nn.ReLU(), _norm(many),
        _up(many, few, 2, 1), nn.ReLU(), _norm(few),
        _up(few, in_channels, 2, 1), nn.Tanh(),
    )  # fmt: skip
    layers: list[nn.Module] = [_SameConv(in_channels, few, 4, 2), nn.ReLU()]
    for inputs, outputs in ((few, many), (many, most), (most, most)):
        layers += [_SameConv(inputs, outputs, 4, 2), nn.ReLU(), _norm(outputs)]
    hidden = 2 * most
    discriminator = nn.Sequential(
        *layers, nn.Flatten(), _linear(most * 2 * 2, hidden), nn.ReLU(), _norm1(hidden), _linear(hidden, 1)
    )
    return _encoder(in_channels, [some, many, most], 4, code_size), generator, discriminator


def _colour_parts(in_channels: int, code_size: int, width: float) -> tuple[nn.Module, nn.Module, nn.Module]:
    """32 x 32: the encoder 32-16-8-4, the generator 4-8-16-32, a spectrally normalised discriminator."""
    some, many, most = (max(4, round(width * count)) for count in (64, 128, 256))
    wide = 2 * most
    generator = nn.Sequential(
        _linear(code_size, 16 * wide), nn.Unflatten(1, (wide, 4, 4)),
        _up(wide, most, 2, 1), nn.ReLU(), _norm(most),
        _up(most, many, 2, 1), nn.ReLU(), _norm(many),
        _up(many, some, 2, 1), nn.ReLU(), _norm(some),
        _SameConv(some, in_channels, 3, 1), nn.Tanh(),
    )  # fmt: skip
    layers: list[nn.Module] = []
    plan = [(in_channels, some, 3), (some, some, 4), (some, many, 3), (many, many, 4), (many, most, 3), (most, most, 4)]
    for inputs, outputs, kernel in [*plan, (most, wide, 3)]:
        layers += [_SameConv(inputs, outputs, kernel, 2 if kernel == 4 else 1, spectral=True), nn.LeakyReLU(0.1)]
    discriminator = nn.Sequential(*layers, nn.Flatten(), _linear(wide * 4 * 4, 1))
    return _encoder(in_channels, [some, many, most], 5, code_size), generator, discriminator
