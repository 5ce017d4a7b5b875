"""Guided back-propagation and deconvolution: gradients whose negative parts are dropped at every activation.

Own, since captum's hook `nn.ReLU` modules only: on a softplus net, or one with `torch.relu` in its forward, they
silently return the plain gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bench.attribution.activations import ACTIVATION_NAMES, OperationMode

Rule = Literal["guided", "deconvolution"]


class _PositiveGradient(torch.autograd.Function):
    """The identity, whose backward pass lets only positive values through."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004
        return values.view_as(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return gradients[0].clamp_min(0.0)


class RectifiedGradients(OperationMode):
    """Inside this context gradients are rectified at every activation; the forward pass is unchanged.

    `guided` multiplies what is left by the activation's derivative (Springenberg et al. 2015), `deconvolution` does
    not (Zeiler and Fergus 2014). For ReLU these are the published rules; for a smooth activation the derivative
    takes the place of the step (LGA, section 4.1). They are no derivatives, and cannot be differentiated again.
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule
        self.activations = 0

    def intercept(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name not in ACTIVATION_NAMES:
            return func(*args, **kwargs)
        self.activations += 1
        inputs: Tensor = args[0] if args else kwargs["input"]
        # an in-place activation would overwrite what the straight-through term still needs
        source = inputs.clone() if name.endswith("_") or kwargs.get("inplace") else inputs
        activated: Tensor = func(source, *args[1:], **{key: value for key, value in kwargs.items() if key != "input"})
        if self.rule == "deconvolution":
            activated = inputs + (activated - inputs).detach()
        rectified: Tensor = _PositiveGradient.apply(activated)
        return rectified
