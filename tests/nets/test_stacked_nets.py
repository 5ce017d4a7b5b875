from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.core.errors import BenchError
from bench.nets import build_net
from bench.nets.stacked_nets import StackedNets

GREY: dict[str, Any] = {"in_channels": 1, "image_size": 28, "num_classes": 10, "mean": [0.3], "std": [0.4]}
COLOUR: dict[str, Any] = {**GREY, "in_channels": 3, "image_size": 32, "mean": [0.3] * 3, "std": [0.4] * 3}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("patch_cnn", GREY), ("small_cnn", GREY), ("cifar_cnn", COLOUR), ("patch_cnn", {**COLOUR, "width": 3})],
)
def test_nets_side_by_side_give_the_logits_and_gradients_of_each_alone(name: str, parameters: dict[str, Any]) -> None:
    nets = [build_net(name, parameters) for _ in range(3)]
    for net in nets:
        for parameter in net.parameters():  # biases too, which start at 0 in some nets
            parameter.data += 0.01 * torch.randn_like(parameter)
    images = torch.rand(3, 5, parameters["in_channels"], parameters["image_size"], parameters["image_size"])
    together = StackedNets(nets, parameters["image_size"])
    normalised = (images - 0.3) / 0.4
    logits = together(torch.stack([together.cells.lay_out(one) for one in normalised]))
    alone = torch.stack([net(one) for net, one in zip(nets, images, strict=True)])
    torch.testing.assert_close(logits, alone, rtol=1e-4, atol=1e-5)
    logits.square().sum().backward()
    alone.square().sum().backward()
    for stacked, own in zip(together.parameters(), zip(*(net.parameters() for net in nets), strict=True), strict=True):
        assert stacked.grad is not None
        # sorted, since stacked weights lie in another order; net by net
        found = stacked.grad.reshape(len(nets), -1).sort(1).values
        expected = torch.stack([parameter.grad.flatten().sort().values for parameter in own])
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
        assert not torch.allclose(found, expected.flip(0), rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_a_layer_that_cannot_be_stacked_is_refused() -> None:
    net = torch.nn.Sequential(torch.nn.BatchNorm2d(1))
    with pytest.raises(BenchError, match="BatchNorm2d layer cannot be trained side by side"):
        StackedNets([net, net], 28)
