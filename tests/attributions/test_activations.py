"""The softplus twin of nets whose activations have kinks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.attributions.activations import SoftplusTwin, has_relu


class ByHand(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return F.leaky_relu(F.relu6(inputs), 0.2)


KINKED = [
    nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.ReLU6(inplace=True), nn.Hardtanh(), nn.Hardtanh(-2.0, 0.5),
    nn.LeakyReLU(), nn.LeakyReLU(0.3), nn.PReLU(), nn.RReLU().eval(), nn.Hardsigmoid(), ByHand(),
]  # fmt: skip


@pytest.mark.parametrize("activation", KINKED, ids=repr)
def test_the_twin_comes_close_and_has_second_derivatives(activation: nn.Module) -> None:
    inputs = torch.linspace(-8, 8, 201)
    assert has_relu(activation, inputs)
    with torch.no_grad(), SoftplusTwin(50.0):
        twin = activation(inputs.clone())
    assert torch.allclose(twin, activation(inputs.clone()), atol=0.03)
    points = inputs.requires_grad_(True)
    with SoftplusTwin(1.0):
        (slope,) = torch.autograd.grad(activation(points * 1.0).sum(), points, create_graph=True)
    (bend,) = torch.autograd.grad(slope.square().sum(), points)
    assert float(bend.abs().max()) > 0.005


def test_a_smooth_net_has_no_twin() -> None:
    assert not has_relu(nn.Sequential(nn.Softplus(), nn.GELU()), torch.randn(3))
