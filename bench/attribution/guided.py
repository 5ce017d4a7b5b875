"""Guided back-propagation and deconvolution: gradients whose negative parts are dropped at every activation.

Own, since captum's hook `nn.ReLU` modules only: on a softplus net, or one with `torch.relu` in its forward, they
silently return the plain gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from bench.attribution.operations import ACTIVATION_NAMES, OperationMode, tensors_in
from bench.core.errors import BenchError

Rule = Literal["guided", "deconvolution"]
_CHOICES = frozenset({"where", "maximum", "minimum", "fmax", "fmin"})
"""Operations that may be an activation written by hand, as `where(x > 0, x, 0)`; `x * (x > 0)` is told by its mask."""


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
        if name not in ACTIVATION_NAMES or not args[0].requires_grad:
            self._require_no_choice(name, tensors_in((args, kwargs)))
            return func(*args, **kwargs)
        self.activations += 1
        inputs: Tensor = args[0]
        activated: Tensor = func(*args, **kwargs)
        if self.rule == "deconvolution":
            activated = inputs + (activated - inputs).detach()
        if activated.requires_grad:  # not where the net itself cuts gradients off
            activated.register_hook(lambda gradient: gradient.clamp_min(0.0))  # type: ignore[no-untyped-call]
        return activated

    def _require_no_choice(self, name: str, given: list[Tensor]) -> None:
        masks = name in ("mul", "__mul__", "__rmul__") and any(one.dtype == torch.bool for one in given)
        if (name in _CHOICES or masks) and any(one.requires_grad for one in given):
            raise BenchError(
                f"the operation {name!r} of this net may be an activation, for which there is no rule; write it as one "
                "(F.relu), or use gradient, integrated_gradients or smoothgrad."
            )
