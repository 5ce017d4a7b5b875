"""DeepLIFT's rescale rule, for nets of linear layers, elementwise activations and max-pooling.

Own, since captum's refuses a ReLU module that is used twice (every torchvision ResNet), does not see activations that
are function calls, and misses the logit's change by 10 to 15 % where there is max-pooling (checked with its
convergence delta). Image and reference go through the net as one batch; every nonlinearity then scales gradients by
its change of output over its change of input.
Source: Shrikumar, Greenside, Kundaje 2017, sections 3.2 and 3.5.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.attacks.losses import picked
from bench.attributions.operations import ACTIVATION_NAMES, OperationMode, require_no_choice, tensors_in
from bench.attributions.registry import register_attribution
from bench.attributions.rules import passed_back
from bench.core.errors import BenchError

_SMALL = 1e-6
"""Changes below this share of the two inputs are mostly rounding: there the derivative is the multiplier."""
_MISSED = 0.01
"""How much of the logit's change, in the median, the contributions may miss before the net is refused."""
_ROUNDING = 1e-6
"""A change below this share of the largest logit says nothing."""
_TIED = 1e-4
"""Values of the reference within this share of its largest count as equal where max-pooling chooses among them."""


class RescaleMode(OperationMode):
    """Inside this context gradients are DeepLIFT's multipliers.

    The batch must hold the images in its first half and their references in its second; take the gradient of the
    first half's logits.
    """

    def intercept(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name in ACTIVATION_NAMES and args[0].requires_grad:
            return _rescaled(args[0], lambda values: func(values, *args[1:], **kwargs))
        if name == "max_pool2d" and args[0].requires_grad:
            return _max_pool(*args, **kwargs)
        require_no_choice(name, tensors_in((args, kwargs)))
        return func(*args, **kwargs)


def _rescaled(inputs: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """The activation's output, with a multiplier in place of its derivative."""
    with torch.no_grad():
        output = activation(inputs)
    image, reference = inputs.detach().chunk(2)
    change = image - reference
    tiny = change.abs() <= _SMALL * (image.abs() + reference.abs())
    multiplier = (output[: len(image)] - output[len(image) :]) / torch.where(tiny, torch.ones_like(change), change)
    probe = image.clone().requires_grad_(True)
    with torch.enable_grad():
        (derivative,) = torch.autograd.grad(activation(probe).sum(), probe)
    multiplier = torch.where(tiny, derivative, multiplier)
    both = torch.cat([multiplier, torch.zeros_like(multiplier)])
    return passed_back(inputs, output, lambda gradient: gradient * both)


def _max_pool(inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Max-pooling whose change is given to the image's winner as far as it rises, to the reference's as it falls.

    With m the larger of both outputs, output - reference output = (m - reference output) + (output - m); the first
    part came with the image's winning pixel, the second with the reference's. Neither quotient can exceed 1.
    """
    kwargs.pop("return_indices", None)
    output, where = F.max_pool2d(inputs, *args, **kwargs, return_indices=True)
    pooled, reference = output.detach().chunk(2)
    # a black reference is flat inside a net: rounding must not choose among its equal values, so the first is taken
    flat = inputs.detach().chunk(2)[1]
    step = (_TIED * flat.abs().amax()).clamp_min(torch.finfo(flat.dtype).tiny)
    tied = F.max_pool2d((flat / step).round(), *args, **kwargs, return_indices=True)[1]
    larger = torch.maximum(pooled, reference)
    image = inputs.chunk(2)[0]
    change = (image.detach() - flat).flatten(2)
    parts = []
    for index, part in ((where.chunk(2)[0], larger - reference), (tied, pooled - larger)):
        at = index.flatten(2)
        moved = change.gather(2, at)
        # without a change there is no part of one
        quotient = part.flatten(2) / torch.where(moved == 0, 1.0, moved)
        parts.append(image.flatten(2).gather(2, at) * quotient)
    linear = (parts[0] + parts[1]).view_as(pooled)
    return torch.cat([pooled + linear - linear.detach(), reference])


@register_attribution("deeplift")
def deeplift(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """DeepLIFT's rescale rule against a black image (Shrikumar et al. 2017); see `RescaleMode`."""
    images, count = images.detach(), len(images)
    both = torch.cat([images, torch.zeros_like(images)]).requires_grad_(True)
    logits = RescaleMode().logits(model, both, "deeplift")
    with torch.enable_grad():
        (multipliers,) = torch.autograd.grad(picked(logits[:count], targets).sum(), both)
    maps = multipliers[:count] * images
    logits = logits.detach()
    change = (logits[:count] - logits[count:]).abs()
    missing = (maps.flatten(1).sum(1) - picked(logits[:count] - logits[count:], targets)).abs()
    felt = torch.maximum(change.amax(1), _ROUNDING * logits.abs().amax()).clamp_min(1e-38)
    missed = float((missing / felt).median())
    if not missed <= _MISSED:
        raise BenchError(
            f"deeplift does not support this net: its contributions miss the logit's change by {missed:.0%}; "
            "use integrated_gradients."
        )
    return maps
