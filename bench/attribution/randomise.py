"""Randomising a net's weights from the output down, layer after layer, for the sanity check of attribution maps.

Source: Adebayo et al. 2018, section 3 (cascading randomisation).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bench.core.errors import BenchError
from bench.core.keyed_random import stream_key


def randomised_from_the_top(model: nn.Module, images: Tensor, seed: int) -> Iterator[tuple[str, bool, nn.Module]]:
    """Copies of the net with one, two, ... and at last all layers drawn anew; yields (layer's name, whether
    it is the last one to be drawn, the net so far).

    Layers are convolutions and linear layers in the order in which a forward pass of `images` runs them, the last
    first; each draws from its own initialiser, keyed by seed and name. It is the same net that is yielded every time,
    one layer further.

    Raises:
        BenchError: the net has no such layer.
    """
    net = copy.deepcopy(model)
    layers = _layers_in_order(net, images)
    if not layers:
        raise BenchError("the sanity check randomises convolutions and linear layers; this net has none.")
    for number, (name, layer) in enumerate(reversed(layers), start=1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_key(seed, "randomise", name) & ((1 << 63) - 1))
            fresh = copy.deepcopy(layer).to("cpu")
            fresh.reset_parameters()
        layer.load_state_dict(fresh.state_dict())
        yield name, number == len(layers), net


def _layers_in_order(net: nn.Module, images: Tensor) -> list[tuple[str, nn.Conv2d | nn.Linear]]:
    names = {module: name for name, module in net.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    ran: dict[nn.Module, None] = {}
    hooks = [module.register_forward_hook(lambda module, *_: ran.setdefault(module)) for module in names]
    try:
        with torch.no_grad():
            net(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [(names[module], module) for module in ran if isinstance(module, nn.Conv2d | nn.Linear)]
