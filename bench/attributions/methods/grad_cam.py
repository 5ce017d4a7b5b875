"""Grad-CAM, and the convolution that it looks at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn import functional as F

from bench.attributions.operations import OperationMode, ancestors
from bench.attributions.registry import picked, register_attribution
from bench.core.errors import BenchError
from bench.core.torch_state import twice_differentiable


@register_attribution("grad_cam", differentiable=True, signed=False)
def grad_cam(model: nn.Module, images: Tensor, targets: Tensor, *, keep_graph: bool = False) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017) at the last convolution whose output is larger than one pixel.

    The map has one channel, is not negative, and is scaled up to the image's size.
    """
    with torch.enable_grad(), twice_differentiable(keep_graph):
        logits, output = logits_and_convolution(model, images, "grad_cam")
        (slope,) = torch.autograd.grad(picked(logits, targets).sum(), output, create_graph=keep_graph)
        weighted = (slope.mean((2, 3), keepdim=True) * output).sum(1, keepdim=True).clamp_min(0.0)
        return F.interpolate(weighted, images.shape[2:], mode="bilinear")


def logits_and_convolution(model: nn.Module, inputs: Tensor, purpose: str) -> tuple[Tensor, Tensor]:
    """Logits (N, K) and what the last convolution with more than one pixel gave (N, C, H', W'), with their graph.

    The last one is that of the ones whose gradient the logits have; what a net computes and does not use is no part
    of its answer.

    Raises:
        BenchError: there is none, or part of the net is not seen.
    """
    seen = _Convolutions()
    logits = seen.logits(model, inputs, purpose)
    before = set(ancestors(logits.grad_fn))
    used = [number for number, node in enumerate(seen.nodes) if node in before]
    if used and used[-1] < len(seen.nodes) - 1:
        seen = _Convolutions(used[-1])
        logits = seen.logits(model, inputs, purpose)
    if seen.output is None or not used or len(seen.output) != len(inputs):
        raise BenchError(
            f"{purpose} needs a convolution that the logits come from, with an output of more than one pixel for each "
            "image; this net has none."
        )
    return logits, seen.output


class _Convolutions(OperationMode):
    """Keeps the output of a convolution as it is before anything is done to it in place.

    Attributes:
        nodes: of autograd's graph, one for each convolution whose output has a gradient and more than one pixel.
        output: (N, C, H', W') of the one that is wanted, the last if `wanted` is None.
    """

    rewrites: ClassVar[bool] = False

    def __init__(self, wanted: int | None = None) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.output: Tensor | None = None
        self.wanted = wanted

    def intercept(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        if name not in ("conv2d", "convolution") or not result.requires_grad:
            return result
        if result.dim() != 4 or result.shape[2:].numel() == 1:
            return result
        if self.wanted in (None, len(self.nodes)):
            self.output = result
        self.nodes.append(result.grad_fn)
        return result.clone()
