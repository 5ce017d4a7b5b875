"""A net made ready for many gradients to its images: channels last, layers that compute the same quicker."""

from __future__ import annotations

import torch
from torch import nn

from bench.nets.input_conv import InputConv2d
from bench.nets.quick_flatten import QuickFlatten
from bench.nets.quick_softplus import QuickSoftplus

_QUICK: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: InputConv2d, nn.Softplus: QuickSoftplus, nn.Flatten: QuickFlatten,
}  # fmt: skip
_USUAL_THRESHOLD = nn.Softplus().threshold


def prepare_net(net: nn.Module) -> nn.Module:
    """The net itself, its layers quick ones and its weights channels last.

    Logits and gradients stay the same up to rounding.
    """
    for module in net.modules():
        first = type(module) is nn.Conv2d and InputConv2d.pays(module)
        usual = type(module) is nn.Softplus and module.threshold == _USUAL_THRESHOLD and module.beta > 0
        if first or usual or type(module) is nn.Flatten:
            module.__class__ = _QUICK[type(module)]  # parameters, buffers, hooks and name stay as they are
    return net.to(memory_format=torch.channels_last)


def usual_layers(net: nn.Module) -> nn.Module:
    """The net itself, its layers those of torch again, for those who know layers by their exact class."""
    usual = {quick: plain for plain, quick in _QUICK.items()}
    for module in net.modules():
        module.__class__ = usual.get(type(module), type(module))
    return net
