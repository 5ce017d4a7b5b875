"""Grad-CAM, and the convolution that it looks at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn import functional as F

from bench.attacks.losses import picked
from bench.attributions.layers import named_features, running_modules, short_name
from bench.attributions.operations import OperationMode, ancestors
from bench.attributions.registry import register_attribution
from bench.core.errors import BenchError
from bench.core.torch_state import twice_differentiable
from bench.leaderboard.findings import Finding

Layer = Annotated[str, Field(description="name of a module; the last convolution if not given")]
_ATTENTION = frozenset({"scaled_dot_product_attention", "multi_head_attention_forward"})


def _which_layer(model: nn.Module, images: Tensor, layer: str = "") -> list[Finding]:
    """Which layer is looked at where the user has named none."""
    if layer:
        return []
    name, attends = last_convolution(model, images, "grad_cam")
    evidence = f"grad_cam looks at the last convolution, {name or 'which is no module'}"
    if attends:
        evidence += ", before the net's attention"
    return [Finding("layer_grad_cam", "warning" if attends else "note", evidence, "`layer = ...` names another")]


@register_attribution("grad_cam", differentiable=True, signed=False, look=_which_layer)
def grad_cam(
    model: nn.Module, images: Tensor, targets: Tensor, *, keep_graph: bool = False, layer: Layer = ""
) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017) at the last convolution whose output is larger than one pixel.

    A layer may be named instead: one with features (N, C, H', W'), (N, H', W', C) as Swin's, or tokens (N, T, C), of
    which those of patches count. The map has one channel, is not negative, and is scaled up to the image's size.
    """
    with torch.enable_grad(), twice_differentiable(keep_graph):
        if layer:
            logits, output, to_grid = named_features(model, images, layer, "grad_cam")
        else:
            logits, output = logits_and_convolution(model, images, "grad_cam")
        (slope,) = torch.autograd.grad(
            picked(logits, targets).sum(), output, create_graph=keep_graph, materialize_grads=True
        )
        if layer:
            slope, output = to_grid(slope), to_grid(output)
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
    last = seen.last_used(logits)
    if last is not None and last < len(seen.nodes) - 1:
        seen = _Convolutions(last)
        logits = seen.logits(model, inputs, purpose)
    if seen.output is None or last is None or len(seen.output) != len(inputs):
        raise BenchError(
            f"{purpose} needs a convolution that the logits come from, with an output of more than one pixel for each "
            "image; this net has none."
        )
    return logits, seen.output


def last_convolution(model: nn.Module, images: Tensor, purpose: str) -> tuple[str, bool]:
    """The name of the module that computes it, empty if none does, and whether the net attends after it."""
    with running_modules(model) as running:
        seen = _Convolutions(running=running)
        logits = seen.logits(model, images.detach().requires_grad_(True), purpose)
    last = seen.last_used(logits)
    return ("", False) if last is None else (short_name(seen.names[last]), seen.attends[last])


class _Convolutions(OperationMode):
    """Keeps the output of a convolution as it is before anything is done to it in place.

    Attributes:
        nodes: of autograd's graph, one for each convolution whose output has a gradient and more than one pixel.
        output: (N, C, H', W') of the one that is wanted, the last if `wanted` is None.
        names: of the modules that computed them, where `running` tells what runs.
        attends: whether attention came after each.
    """

    rewrites: ClassVar[bool] = False

    def __init__(self, wanted: int | None = None, running: Sequence[tuple[str, nn.Module]] = ()) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.output: Tensor | None = None
        self.wanted, self.running = wanted, running
        self.names: list[str] = []
        self.attends: list[bool] = []

    def last_used(self, logits: Tensor) -> int | None:
        """The number of the last convolution that the logits come from."""
        before = set(ancestors(logits.grad_fn))
        return max((number for number, node in enumerate(self.nodes) if node in before), default=None)

    def intercept(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*args, **kwargs)
        if name in _ATTENTION or (name == "softmax" and args[0].dim() > 2):
            self.attends = [True] * len(self.attends)
        if name not in ("conv2d", "convolution") or not result.requires_grad:
            return result
        if result.dim() != 4 or result.shape[2:].numel() == 1:
            return result
        if self.wanted in (None, len(self.nodes)):
            self.output = result
        self.nodes.append(result.grad_fn)
        self.names.append(self.running[-1][0] if self.running else "")
        self.attends.append(False)
        return result.clone()
