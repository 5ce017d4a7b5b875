"""Randomising a net's weights from the output down, layer after layer, for the sanity check of attribution maps.

Source: Adebayo et al. 2018, section 3 (cascading randomisation).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from bench.core.errors import BenchError
from bench.core.keyed_random import stream_key
from bench.nets.intake import copy_net
from bench.nets.logit_scale import ScaledLogits

_LAYERS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear,
    nn.Bilinear, nn.Embedding, nn.MultiheadAttention,
)  # fmt: skip
"""What is drawn anew. Norms keep what they have: their scale and shift have no random initial values."""


def randomised_from_the_top(model: nn.Module, images: Tensor, seed: int) -> Iterator[tuple[str, bool, nn.Module]]:
    """Copies of the net with one, two, ... and at last all layers drawn anew; yields (layer's name, whether
    it is the last one to be drawn, the net so far).

    Layers are convolutions, linear layers, embeddings and attention in the order in which a forward pass of `images`
    runs them, the last first; each draws from its own initialiser, keyed by seed and name. Weights that are computed
    (normalised, pruned, parametrised) become plain ones first. It is the same net that is yielded every time, one layer
    further.

    Raises:
        BenchError: the net has no such layer, or one whose weights are the same after they were drawn.
    """
    model = model.net if isinstance(model, ScaledLogits) else model  # maps are the same at any scale, names are not
    names = _layers_in_order(model, images)
    if not names:
        raise BenchError("the sanity check randomises convolutions and linear layers; this net has none.")
    net = copy_net(model)
    for number, name in enumerate(reversed(names), start=1):
        layer, original = net.get_submodule(name), model.get_submodule(name)
        for part in layer.modules():
            _make_plain(part)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(stream_key(seed, "randomise", name) & ((1 << 63) - 1))
            fresh = copy_net(layer).to("cpu")
            if isinstance(fresh, nn.MultiheadAttention):
                fresh.out_proj.reset_parameters()
                fresh._reset_parameters()
            else:
                fresh.reset_parameters()  # type: ignore[operator]
        with torch.no_grad():
            for key, value in fresh.named_parameters():
                layer.get_parameter(key).copy_(value)
            net(images)  # weights that are computed in a forward pass now exist
        if any(torch.equal(*pair) for pair in zip(_weights(layer), _weights(original), strict=True)):
            raise BenchError(
                f"layer {name} ({type(layer).__name__}) keeps its weights when they are drawn anew; set "
                "`randomisation = false` in a suite of your own to judge this net without the sanity check."
            )
        yield name, number == len(names), net


def _layers_in_order(net: nn.Module, images: Tensor) -> list[str]:
    names: dict[nn.Module, str] = {module: name for name, module in net.named_modules() if isinstance(module, _LAYERS)}
    ran: dict[nn.Module, None] = {}
    hooks = [module.register_forward_hook(lambda module, *_: ran.setdefault(module)) for module in names]
    try:
        with torch.no_grad():
            net(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [names[module] for module in ran]


def _make_plain(layer: nn.Module) -> None:
    """Turn what computes a layer's weights into the weights that it computes."""
    if parametrize.is_parametrized(layer):
        # not remove_parametrizations: it also strips the class, which the layer shares with the one it is a copy of
        values = {name: getattr(layer, name).detach().contiguous() for name in layer.parametrizations}  # type: ignore[union-attr]
        del layer.parametrizations
        layer.__class__ = type(layer).__bases__[0]
        for name, value in values.items():
            layer.register_parameter(name, nn.Parameter(value.clone(), requires_grad=False))
    for hook in list(layer._forward_pre_hooks.values()):
        if isinstance(hook, WeightNorm):
            remove_weight_norm(layer, hook.name)
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(layer, hook.name)
        elif isinstance(hook, prune.BasePruningMethod):
            prune.remove(layer, hook._tensor_name)  # type: ignore[no-untyped-call]


def _weights(layer: nn.Module) -> list[Tensor]:
    """The weights that a forward pass multiplies with."""
    if not isinstance(layer, nn.MultiheadAttention):
        return [layer.weight]  # type: ignore[list-item]
    inward = [layer.in_proj_weight, layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight]
    return [layer.out_proj.weight, *(weight for weight in inward if weight is not None)]
