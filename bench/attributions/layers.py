"""Layers by name: which module runs, what a layer gave, and where its features lie on the image.

Features are (N, C, H', W') in most nets, (N, H', W', C) in channels-last ones such as Swin, and (N, T, C) where tokens
stand for patches. What cannot be told from the net itself is refused, not guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import Tensor, nn

from bench.attributions.operations import OperationMode
from bench.core.errors import BenchError
from bench.core.names import unknown_name

ToGrid = Callable[[Tensor], Tensor]
"""Features, or their gradients, as (N, C, H', W')."""
_CHANNELS_FIRST = (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm, nn.MaxPool2d, nn.AvgPool2d)


@contextmanager
def running_modules(model: nn.Module) -> Iterator[list[tuple[str, nn.Module]]]:
    """The modules that run at the moment, outermost first, each with its name; while a forward pass goes on inside."""
    running: list[tuple[str, nn.Module]] = []

    def leave(*_: Any) -> None:
        running.pop()

    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, entry=(name, module): running.append(entry)))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield running
    finally:
        for handle in handles:
            handle.remove()


def short_name(name: str) -> str:
    """A module's name as its net's author knows it, without the wrappers that judging puts around a net."""
    while name.startswith("net."):
        name = name.removeprefix("net.")
    return name


def find_layer(model: nn.Module, layer: str) -> str:
    """The full name of the layer that a user names; raises BenchError."""
    known: list[str] = [name for name, _ in model.named_modules() if name]
    matches = [name for name in known if name == layer or name.endswith(f".{layer}")]
    matches = [name for name in matches if name.count(".") == min(one.count(".") for one in matches)]
    if len(matches) != 1:
        raise unknown_name(layer, map(short_name, known), "layer of this net")
    return matches[0]


def named_features(model: nn.Module, inputs: Tensor, layer: str, purpose: str) -> tuple[Tensor, Tensor, ToGrid]:
    """Logits (N, K), what the layer gave, both with their graph, and how that becomes (N, C, H', W').

    Args:
        inputs: (N, C, H, W) that require gradients.
        purpose: who asks, for errors.

    Raises:
        BenchError: there is no such layer, it runs never or more than once, or its features lie on no known grid.
    """
    module = model.get_submodule(find_layer(model, layer))
    outputs: list[Any] = []

    def keep(_: nn.Module, __: Any, output: Any) -> Any:
        outputs.append(output)
        return output.clone() if isinstance(output, Tensor) else output  # others may change it in place

    grids, hook = _Grids(), module.register_forward_hook(keep)
    try:
        logits = grids.logits(model, inputs, purpose)
    finally:
        hook.remove()
    if len(outputs) != 1:
        raise BenchError(f"{purpose} needs a layer that runs once for an image; {layer} runs {len(outputs)} times.")
    features = outputs[0]
    if not isinstance(features, Tensor) or not features.requires_grad or len(features) != len(inputs):
        raise BenchError(f"{purpose} needs a layer that gives features of each image; {layer} gives none.")
    return logits, features, _to_grid(features, module, inputs, grids.tokens, who=f"{purpose} at layer {layer}")


class _Grids(OperationMode):
    """Follows patches: how many tokens there are, how many of them come before the patches, and the patches' grid."""

    rewrites: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.tokens: dict[int, tuple[int, tuple[int, int]]] = {}

    def intercept(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        if name in ("conv2d", "convolution") and result.dim() == 4:
            height, width = result.shape[2:]
            self.tokens[height * width] = (0, (height, width))
        elif name in ("cat", "concat") and result.dim() == 3:
            self._joined(args[0] if args else kwargs["tensors"], result.shape[1])
        return result

    def _joined(self, parts: Sequence[Tensor], count: int) -> None:
        lengths = [part.shape[1] for part in parts]
        patches = [number for number, length in enumerate(lengths) if length > 1 and length in self.tokens]
        if sum(lengths) == count and len(patches) == 1:
            offset, grid = self.tokens[lengths[patches[0]]]
            self.tokens[count] = (offset + sum(lengths[: patches[0]]), grid)


def _to_grid(
    features: Tensor, module: nn.Module, images: Tensor, tokens: dict[int, tuple[int, tuple[int, int]]], who: str
) -> ToGrid:
    shape, size = features.shape, (images.shape[2], images.shape[3])
    if features.dim() == 4:
        first = isinstance(module, _CHANNELS_FIRST) or _covers((shape[2], shape[3]), size)
        last = not isinstance(module, _CHANNELS_FIRST) and _covers((shape[1], shape[2]), size)
        if first != last:
            return (lambda values: values) if first else (lambda values: values.permute(0, 3, 1, 2))
    if features.dim() == 3 and shape[1] in tokens and shape[2] not in tokens:
        offset, (height, width) = tokens[shape[1]]
        patches = slice(offset, offset + height * width)
        return lambda values: values[:, patches].transpose(1, 2).reshape(len(values), -1, height, width)
    raise BenchError(
        f"{who} cannot tell where on the image its features of shape {tuple(shape[1:])} lie; name another layer."
    )


def _covers(grid: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether a grid has an image's proportions: exactly of a square image, up to rounding of another."""
    (rows, columns), (height, width) = grid, size
    if rows * columns == 1 or rows > height or columns > width:
        return False
    return rows == columns if height == width else abs(rows * width - columns * height) <= max(height, width)
