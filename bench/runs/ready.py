"""A model as its units use it: done to a loaded net in one place, so that what was checked is what is judged."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.catalog.models import ModelEntry, load_model
from bench.core.devices import current_device
from bench.core.errors import BenchError, is_interrupt
from bench.core.memory import is_out_of_memory
from bench.core.precision import float32_products
from bench.core.random_state import random_numbers_of
from bench.data import ImageDataset
from bench.nets.input_conv import prepare_net
from bench.nets.logit_scale import at_usual_scale
from bench.protocols.clean_pass import has_gradient

_TRIED = 2
_LOOKED_AT = 16
"""The data set's first images, whatever the unit, tell the size of the net's logits."""
_SAME = 1e-3
"""How far the prepared net's logits may lie from the plain one's, over the largest: rounding stays far below."""


def prepared_net(entry: ModelEntry, dataset: ImageDataset, device: torch.device) -> nn.Module:
    """The entry's net on `device`: prepared for many gradients, or as it was loaded where it cannot be.

    A net may depend on how its tensors lie in memory (`x.view` after a convolution) or be called on single images; it
    is then left as it is. One that does not take the images at all is returned too: `clean_pass` says why.

    Raises:
        BenchError: the model cannot be loaded.
    """
    net = load_model(entry, device)
    images = dataset.pixels(slice(0, _TRIED)).to(device)
    with current_device(device), float32_products():
        expected = _logits(net, images, device)
        if expected is None or expected.dim() != 2:
            return net
        differentiable = _has_gradients(net, images, device)
        net = prepare_net(net)
        found = _logits(net, images, device)
        same = found is not None and bool((found - expected).abs().amax() <= _SAME * expected.abs().amax())
        if not same or _has_gradients(net, images, device) != differentiable:
            net = load_model(entry, device)
    return net


def scaled_net(net: nn.Module, dataset: ImageDataset, device: torch.device) -> nn.Module:
    """The net of `prepared_net`, which has passed a clean pass, with logits of a usual size."""
    images = dataset.pixels(slice(0, _LOOKED_AT)).to(device)
    with current_device(device), float32_products(), random_numbers_of(device, "size"):
        return at_usual_scale(net, images, _TRIED)


def _logits(net: nn.Module, images: Tensor, device: torch.device) -> Tensor | None:
    """(N + 1, K) of the images together and of the first alone; None where the net fails."""
    try:
        with torch.no_grad(), random_numbers_of(device, "logits"):
            return torch.cat([net(images), net(images[:1])])
    except BaseException as error:  # of any kind: the net may be the user's own
        if is_out_of_memory(error) or is_interrupt(error):
            raise
        return None


def _has_gradients(net: nn.Module, images: Tensor, device: torch.device) -> bool:
    try:
        with random_numbers_of(device, "gradients"):
            return has_gradient(net, images) and has_gradient(net, images[:1])
    except BenchError:
        return False
