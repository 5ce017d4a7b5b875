"""Guided back-propagation and deconvolution: gradients whose negative parts are dropped at every activation.

Own, since captum's hook `nn.ReLU` modules only: on a softplus net, or one with `torch.relu` in its forward, they
silently return the plain gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.attacks.losses import picked
from bench.attributions.operations import ACTIVATION_NAMES, require_no_choice, tensors_in
from bench.attributions.registry import register_attribution
from bench.attributions.rules import RuleMode
from bench.core.errors import BenchError

Rule = Literal["guided", "deconvolution"]


class RectifiedGradients(RuleMode):
    """Inside this context gradients are rectified at every activation; the forward pass is unchanged.

    `guided` multiplies what is left by the activation's derivative (Springenberg et al. 2015), `deconvolution` does
    not (Zeiler and Fergus 2014). For ReLU these are the published rules; for a smooth activation the derivative
    takes the place of the step (LGA, section 4.1). They are no derivatives of the net. Guided maps can be
    differentiated; those of deconvolution depend on the image through max-pooling's choices alone, so not.
    """

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule
        self.activations = 0

    def operation(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name not in ACTIVATION_NAMES or not args[0].requires_grad:
            require_no_choice(name, tensors_in((args, kwargs)))
            return func(*args, **kwargs)
        self.activations += 1
        inputs: Tensor = args[0]
        if self.true_inputs:  # the map is differentiated, and so the activation's derivative
            place = self.true_inputs[0].view_as(self.true_inputs[0])
            (slope,) = torch.autograd.grad(func(place, *args[1:], **kwargs).sum(), place, create_graph=True)
            with torch.no_grad():
                output: Tensor = func(*args, **kwargs)
            return self.by_rule([inputs], output, lambda _, given: (given.clamp_min(0.0) * slope,))
        activated: Tensor = func(*args, **kwargs)
        if self.rule == "deconvolution":
            activated = inputs + (activated - inputs).detach()
        if activated.requires_grad:  # not where the net itself cuts gradients off
            activated.register_hook(lambda gradient: gradient.clamp_min(0.0))  # type: ignore[no-untyped-call]
        return activated


@register_attribution("guided_backprop", differentiable=True)
def guided_backprop(model: nn.Module, images: Tensor, targets: Tensor, *, keep_graph: bool = False) -> Tensor:
    """Guided back-propagation (Springenberg et al. 2015); see `RectifiedGradients`."""
    return _rectified("guided", "guided_backprop", model, images, targets=targets, keep_graph=keep_graph)


@register_attribution("deconvolution")
def deconvolution(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Deconvolution (Zeiler and Fergus 2014); see `RectifiedGradients`."""
    return _rectified("deconvolution", "deconvolution", model, images, targets=targets)


def _rectified(
    rule: Rule, name: str, model: nn.Module, images: Tensor, *, targets: Tensor, keep_graph: bool = False
) -> Tensor:
    mode = RectifiedGradients(rule)
    source, logits, _ = mode.passes(model, images, name, keep_graph=keep_graph)
    if not mode.activations:
        raise BenchError(f"{name} needs a net with activations, this one has none; use the gradient.")
    (found,) = torch.autograd.grad(picked(logits, targets).sum(), source, create_graph=keep_graph)
    return found
