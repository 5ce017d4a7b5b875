from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

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


UNSUPPORTED: dict[str, nn.Module] = {
    "Conv2d layer of padding_mode circular": nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"),
    r"Conv2d layer of dilation \(2, 2\)": nn.Conv2d(1, 4, 3, padding=2, dilation=2),
    "Conv2d layer of groups 2": nn.Conv2d(2, 4, 3, groups=2),
    r"Conv2d layer of kernel_size \(3, 1\)": nn.Conv2d(1, 4, (3, 1)),
    r"Conv2d layer of stride \(1, 2\)": nn.Conv2d(1, 4, 3, stride=(1, 2)),
    r"Conv2d layer of padding \(1, 0\)": nn.Conv2d(1, 4, 3, padding=(1, 0)),
    "Conv2d layer of padding same": nn.Conv2d(1, 4, 3, padding="same"),
    "MaxPool2d layer of stride 1": nn.MaxPool2d(2, stride=1),
    r"MaxPool2d layer of kernel_size \(2, 3\)": nn.MaxPool2d((2, 3)),
    "MaxPool2d layer of padding 1": nn.MaxPool2d(2, padding=1),
    "MaxPool2d layer of dilation 2": nn.MaxPool2d(2, dilation=2),
    "MaxPool2d layer of ceil_mode True": nn.MaxPool2d(2, ceil_mode=True),
    "Flatten layer of start_dim 2": nn.Flatten(2),
}


@pytest.mark.parametrize("line", UNSUPPORTED)
def test_a_layer_set_to_what_is_not_done_is_refused(line: str) -> None:
    net = nn.Sequential(UNSUPPORTED[line])
    with pytest.raises(BenchError, match=f"nets with a {line} cannot be trained side by side"):
        StackedNets([net, net], 28)


def test_a_net_whose_layers_are_not_all_it_does_is_refused() -> None:
    class Residual(nn.Sequential):
        def forward(self, images: Tensor) -> Tensor:
            found: Tensor = super().forward(images) + images
            return found

    net = Residual(nn.Conv2d(1, 1, 3, padding=1))
    with pytest.raises(BenchError, match=r"a forward pass of their own \(Residual\)"):
        StackedNets([net, net], 28)


def test_settings_that_are_done_give_the_logits_of_each_net_alone() -> None:
    nets = [
        nn.Sequential(
            nn.Conv2d(1, 4, (3, 3), (2, 2), (1, 1), bias=False), nn.Softplus(3.0, threshold=1.0),
            nn.MaxPool2d((2, 2), (2, 2)), nn.Flatten(), nn.Linear(4 * 3 * 3, 5, bias=False),
        )
        for _ in range(2)
    ]  # fmt: skip
    images = torch.rand(2, 3, 1, 14, 14)
    alone = torch.stack([net(one) for net, one in zip(nets, images, strict=True)])
    torch.testing.assert_close(StackedNets(nets, 14)(images), alone)
