"""Many nets of one architecture in one: stacked weights, one product for all nets where each alone would make its own.

Small nets trained one after another spend their time between kernels, not in them. Side by side, a layer of all nets is
one batched matrix product (or one grouped convolution), and the nets stay exactly as independent as they were.

torch.func.vmap of functional_call is shorter. A training step of 20 nets of roar_quick (patch_cnn, 50 images, one
thread) takes 1.39 times as long with it in float32 and 1.63 times in bfloat16 (medians of seven turns); with the first
convolution as here and the rest under vmap 1.26 times. With small_cnn, whose convolutions are grouped either way, it
takes 0.92 times as long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.core.errors import BenchError
from bench.nets.layers import Normalization

_PATCH_LIMIT = 128
"""A convolution over patches of at most this many values is done as a product over copied patches."""


class StackedNets(nn.Module):
    """G nets with weights of their own; image (g, i) goes through net g.

    Takes what the nets' own normalisation would give, so that images can be masked in the same pass.

    Args:
        nets: of one architecture, a plain sequence of normalisation, convolutions, activations, max-pools, flatten and
            linear layers. Their weights are copied.
        image_size: side of the images, needed to follow shapes.
        dtype: of products and activations; weights stay in float32.

    Attributes:
        cells: how pixels must be laid out for `forward`.

    Raises:
        BenchError: the architecture has another kind of layer, or one set as none of ours is.
    """

    def __init__(self, nets: Sequence[nn.Module], image_size: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.count = len(nets)
        self.cells = Cells()
        self.weights = nn.ParameterList()
        self._steps: list[Callable[[Tensor], Tensor]] = []
        self._dtype, self._side, self._channels = dtype, image_size, 0
        # "images" (G, N, C, H, W), "last" (G, N, H, W, C), "grouped" (N, G C, H, W) or "flat" (G, N, D)
        self._layout = "images"
        for net in nets:
            if type(net).forward is not nn.Sequential.forward:
                raise _not_side_by_side(f"a forward pass of their own ({type(net).__name__})")
        for layers in zip(*(list(net.children()) for net in nets), strict=True):
            self._add(list(layers))

    def forward(self, images: Tensor) -> Tensor:
        """(G, N, ...) normalised images in the layout of `cells` -> float32 logits (G, N, K)."""
        for step in self._steps:
            images = step(images)
        return images.float()

    def _add(self, layers: list[Any]) -> None:
        first = layers[0]
        if isinstance(first, Normalization):
            return
        _require_settings(first)
        if isinstance(first, nn.Conv2d):
            self._convolution(layers)
        elif isinstance(first, nn.Linear):
            self._linear(layers)
        elif isinstance(first, nn.MaxPool2d):
            self._to_grouped()
            kernel = _pair(first.kernel_size)[0]
            self._side //= kernel
            self._steps.append(partial(F.max_pool2d, kernel_size=kernel))
        elif isinstance(first, nn.ReLU):
            self._steps.append(partial(F.relu, inplace=True))
        elif isinstance(first, nn.Softplus):
            self._steps.append(partial(F.softplus, beta=first.beta, threshold=first.threshold))
        elif isinstance(first, nn.Flatten):
            if self._layout == "grouped":
                self._steps.append(lambda images: images.view(len(images), self.count, -1).transpose(0, 1))
            else:
                self._steps.append(partial(torch.flatten, start_dim=2))
        else:
            raise _not_side_by_side(f"a {type(first).__name__} layer")

    def _convolution(self, layers: list[nn.Conv2d]) -> None:
        first = layers[0]
        kernel, stride, padding = int(first.kernel_size[0]), int(first.stride[0]), int(first.padding[0])
        weights = torch.stack([layer.weight.detach() for layer in layers])
        biases = torch.stack([_bias(layer) for layer in layers])
        self._side, self._channels = (self._side + 2 * padding - kernel) // stride + 1, first.out_channels
        if self._layout == "images" and first.in_channels * kernel * kernel <= _PATCH_LIMIT and kernel == 2 * stride:
            # (G, C', C, 2 s, 2 s) -> (G, cell row, cell column, C, row, column, C')
            patches = weights.unfold(3, stride, stride).unfold(4, stride, stride).permute(0, 3, 4, 2, 5, 6, 1)
            self._step(_patch_convolution, patches.reshape(self.count, -1, first.out_channels), biases[:, None])
            self.cells, self._layout = Cells(stride, padding), "last"
        else:
            self._to_grouped()
            convolve = partial(F.conv2d, stride=stride, padding=padding, groups=self.count)
            self._step(convolve, weights.flatten(0, 1), biases.flatten())

    def _linear(self, layers: list[nn.Linear]) -> None:
        weights = torch.stack([layer.weight.detach() for layer in layers])
        if self._layout == "last":  # the nets flatten (C, H, W), we have (H, W, C)
            shape = (self.count, -1, self._channels, self._side * self._side)
            weights = weights.view(shape).transpose(2, 3).flatten(2)
        biases = torch.stack([_bias(layer) for layer in layers])
        self._step(_product, weights.transpose(1, 2), biases[:, None])
        self._layout = "flat"

    def _step(self, operation: Callable[[Tensor, Tensor, Tensor], Tensor], weights: Tensor, biases: Tensor) -> None:
        """Add an operation on features, weights and biases, which become the module's."""
        weight, bias = (nn.Parameter(one.clone(memory_format=torch.contiguous_format)) for one in (weights, biases))
        self.weights.extend((weight, bias))
        dtype = self._dtype
        self._steps.append(lambda features: operation(features.to(dtype), weight.to(dtype), bias.to(dtype)))

    def _to_grouped(self) -> None:
        if self._layout != "grouped":
            order = (1, 0, 4, 2, 3) if self._layout == "last" else (1, 0, 2, 3, 4)
            self._steps.append(lambda images: images.permute(order).flatten(1, 2))
            self._layout = "grouped"


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


def _product(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.baddbmm(bias, features, weight)


def _patch_convolution(cells: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Cells (G, N, h, w, D) -> (G, N, h - 1, w - 1, C'): a convolution over two by two cells, as one product."""
    count, examples, rows, columns, depth = cells.shape
    outer = cells.stride()[:3]
    pairs = cells.as_strided((count, examples, rows - 1, columns - 1, 2, 2 * depth), (*outer, depth, outer[2], 1))
    patches = torch.empty(pairs.shape, dtype=weight.dtype, device=cells.device).copy_(pairs)
    products = torch.baddbmm(bias, patches.view(count, -1, 4 * depth), weight)
    return products.view(count, examples, rows - 1, columns - 1, -1)


def _bias(layer: nn.Conv2d | nn.Linear) -> Tensor:
    return torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach()


def _require_settings(layer: nn.Module) -> None:
    """Raise BenchError where a layer is set to what `StackedNets` does not do."""
    if isinstance(layer, nn.Conv2d):
        wanted = {"padding_mode": "zeros", "dilation": 1, "groups": 1}
        wanted |= {name: _pair(getattr(layer, name))[0] for name in ("kernel_size", "stride")}
        wanted["padding"] = 0 if isinstance(layer.padding, str) else layer.padding[0]
    elif isinstance(layer, nn.MaxPool2d):
        kernel = _pair(layer.kernel_size)[0]
        wanted = {"kernel_size": kernel, "stride": kernel, "padding": 0, "dilation": 1}
        wanted |= {"ceil_mode": False, "return_indices": False}
    else:
        wanted = {"start_dim": 1, "end_dim": -1} if isinstance(layer, nn.Flatten) else {}
    for name, value in wanted.items():
        if (given := getattr(layer, name)) not in (value, (value, value)):
            raise _not_side_by_side(f"a {type(layer).__name__} layer of {name} {given}")


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _not_side_by_side(what: str) -> BenchError:
    return BenchError(
        f"nets with {what} cannot be trained side by side; use a plain sequence of convolutions, activations, "
        "max-pools and linear layers, such as patch_cnn or small_cnn."
    )
