"""Many nets of one architecture in one: stacked weights, one product for all nets where each alone would make its own.

Small nets trained one after another spend their time between kernels, not in them. Side by side, a layer of all nets is
one batched matrix product (or one grouped convolution), and the nets stay exactly as independent as they were.

torch.func.vmap of functional_call is shorter. A training step of 20 nets of roar_quick (patch_cnn, 50 images, one
thread) takes 1.39 times as long with it in float32 and 1.63 times in bfloat16 (medians of seven turns); with the first
convolution as here and the rest under vmap 1.26 times. With small_cnn, whose convolutions are grouped either way, it
takes 0.92 times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.errors import BenchError
from bench.nets.layers import Normalization

_PATCH_LIMIT = 128
"""A convolution over patches of at most this many values is done as a product over copied patches."""


class StackedNets(nn.Module):
    """G nets with weights of their own; image (g, i) goes through net g.

    Takes what the nets' own normalisation would give, so that a caller that masks images can do it in the same pass.

    Args:
        nets: of one architecture, a plain sequence of normalisation, convolutions, activations, max-pools, flatten and
            linear layers. Their weights are copied.
        image_size: side of the images, needed to follow shapes.
        dtype: of products and activations; weights stay in float32.

    Attributes:
        cells: how pixels must be laid out for `forward`.

    Raises:
        BenchError: the architecture has another kind of layer.
    """

    def __init__(self, nets: Sequence[nn.Module], image_size: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        builder = _Builder(len(nets), image_size, dtype)
        for layers in zip(*(list(net.children()) for net in nets), strict=True):
            builder.add(list(layers))
        self.count = len(nets)
        self.cells = builder.cells
        self.layers = nn.ModuleList(builder.layers)

    def forward(self, images: Tensor) -> Tensor:
        """(G, N, ...) normalised images in the layout of `cells` -> float32 logits (G, N, K)."""
        for layer in self.layers:
            images = layer(images)
        return images.float()


@dataclass(frozen=True, slots=True)
class Cells:
    """Pixels by square cells: (..., H, W) padded, cut into cells of `size`, the pixels of a cell next to each other.

    A patch of two by two cells is then two runs of memory in place of one for each of its rows, which makes copying
    patches several times cheaper. Done once for a data set. With `size` 0 the layout is the plain one.
    """

    size: int = 0
    padding: int = 0

    def lay_out(self, pixels: Tensor) -> Tensor:
        """(N, C, H, W), any type -> (N, H / size, W / size, C size size), padded with 0; or unchanged."""
        if not self.size:
            return pixels
        padded = F.pad(pixels, [self.padding] * 4)
        cells = padded.unfold(2, self.size, self.size).unfold(3, self.size, self.size)
        return cells.permute(0, 2, 3, 1, 4, 5).flatten(3).contiguous()


class _Builder:
    """Follows layout and shape through the layers: `images` (G, N, C, H, W), `last` (G, N, H, W, C), `grouped`."""

    def __init__(self, count: int, side: int, dtype: torch.dtype) -> None:
        self.count, self.side, self.channels, self.dtype = count, side, 0, dtype
        self.cells = Cells()
        self.layout = "images"
        self.layers: list[nn.Module] = []

    def add(self, layers: list[nn.Module]) -> None:
        first = layers[0]
        if isinstance(first, Normalization):
            return
        if isinstance(first, nn.Conv2d):
            self._convolution([layer for layer in layers if isinstance(layer, nn.Conv2d)])
        elif isinstance(first, nn.Linear):
            self._linear([layer for layer in layers if isinstance(layer, nn.Linear)])
        elif isinstance(first, nn.MaxPool2d):
            self._to_grouped()
            self.side //= _square(first.kernel_size)
            self.layers.append(nn.MaxPool2d(_square(first.kernel_size)))
        elif isinstance(first, nn.ReLU):
            self.layers.append(nn.ReLU(inplace=True))
        elif isinstance(first, nn.Softplus):
            self.layers.append(nn.Softplus(first.beta))
        elif isinstance(first, nn.Flatten):
            self.layers.append(_Flatten(self.count, grouped=self.layout == "grouped"))
        else:
            raise BenchError(
                f"nets with a {type(first).__name__} layer cannot be trained side by side; use a plain sequence of "
                "convolutions, activations, max-pools and linear layers, such as patch_cnn or small_cnn."
            )

    def _convolution(self, layers: list[nn.Conv2d]) -> None:
        first = layers[0]
        kernel, stride, padding = int(first.kernel_size[0]), int(first.stride[0]), int(first.padding[0])
        self.side = (self.side + 2 * padding - kernel) // stride + 1
        if self.layout == "images" and first.in_channels * kernel * kernel <= _PATCH_LIMIT and kernel == 2 * stride:
            self.cells = Cells(stride, padding)
            self.layers.append(_PatchConvolution(layers, stride, self.dtype))
            self.layout = "last"
        else:
            self._to_grouped()
            self.layers.append(_GroupedConvolution(layers, stride, padding, self.dtype))
        self.channels = first.out_channels

    def _to_grouped(self) -> None:
        if self.layout != "grouped":
            self.layers.append(_ToGrouped(channels_last=self.layout == "last"))
            self.layout = "grouped"

    def _linear(self, layers: list[nn.Linear]) -> None:
        weights = torch.stack([layer.weight.detach() for layer in layers])
        if self.layout == "last":  # the nets flatten (C, H, W), we have (H, W, C)
            shape = (self.count, -1, self.channels, self.side * self.side)
            weights = weights.view(shape).transpose(2, 3).flatten(2)
        self.layers.append(_Linear(weights, torch.stack([layer.bias.detach() for layer in layers]), self.dtype))
        self.layout = "flat"


class _Linear(nn.Module):
    def __init__(self, weights: Tensor, biases: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.weight = nn.Parameter(weights.transpose(1, 2).contiguous())
        self.bias = nn.Parameter(biases[:, None].clone())

    def forward(self, features: Tensor) -> Tensor:
        return torch.baddbmm(self.bias.to(self.dtype), features.to(self.dtype), self.weight.to(self.dtype))


class _PatchConvolution(nn.Module):
    """Cells (G, N, h, w, D) -> (G, N, h - 1, w - 1, C'): a convolution over two by two cells, as one product."""

    def __init__(self, layers: list[nn.Conv2d], stride: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        weights = torch.stack([layer.weight.detach() for layer in layers])
        # (G, C', C, 2 s, 2 s) -> (G, cell row, cell column, C, row, column, C')
        cells = weights.unfold(3, stride, stride).unfold(4, stride, stride).permute(0, 3, 4, 2, 5, 6, 1)
        self.weight = nn.Parameter(cells.reshape(len(layers), -1, weights.shape[1]).contiguous())
        self.bias = nn.Parameter(torch.stack([_bias(layer)[None] for layer in layers]))

    def forward(self, cells: Tensor) -> Tensor:
        count, examples, rows, columns, depth = cells.shape
        outer = cells.stride()[:3]
        pairs = cells.as_strided(
            (count, examples, rows - 1, columns - 1, 2, 2 * depth), (*outer, depth, outer[2], 1)
        )  # fmt: skip
        patches = torch.empty(pairs.shape, dtype=self.dtype, device=cells.device).copy_(pairs)
        weight, bias = self.weight.to(self.dtype), self.bias.to(self.dtype)
        return torch.baddbmm(bias, patches.view(count, -1, 4 * depth), weight).view(
            count, examples, rows - 1, columns - 1, -1
        )


class _GroupedConvolution(nn.Module):
    """(N, G C, H, W) -> (N, G C', h, w)."""

    def __init__(self, layers: list[nn.Conv2d], stride: int, padding: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.stride, self.padding, self.groups, self.dtype = stride, padding, len(layers), dtype
        self.weight = nn.Parameter(torch.cat([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.cat([_bias(layer) for layer in layers]))

    def forward(self, images: Tensor) -> Tensor:
        weight, bias = self.weight.to(self.dtype), self.bias.to(self.dtype)
        return F.conv2d(images.to(self.dtype), weight, bias, self.stride, self.padding, groups=self.groups)


class _ToGrouped(nn.Module):
    def __init__(self, *, channels_last: bool) -> None:
        super().__init__()
        self.order = (1, 0, 4, 2, 3) if channels_last else (1, 0, 2, 3, 4)

    def forward(self, images: Tensor) -> Tensor:
        return images.permute(self.order).flatten(1, 2)


class _Flatten(nn.Module):
    def __init__(self, count: int, *, grouped: bool) -> None:
        super().__init__()
        self.count, self.grouped = count, grouped

    def forward(self, images: Tensor) -> Tensor:
        if self.grouped:
            return images.view(len(images), self.count, -1).transpose(0, 1)
        return images.flatten(2)


def _square(size: int | tuple[int, ...]) -> int:
    return size if isinstance(size, int) else size[0]


def _bias(layer: nn.Conv2d) -> Tensor:
    return torch.zeros(layer.out_channels) if layer.bias is None else layer.bias.detach().clone()
