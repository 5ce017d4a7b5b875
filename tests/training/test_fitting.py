from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.core.errors import BenchError
from bench.nets.input_conv import InputConv2d
from bench.training.fitting import _prepared


class Viewing(nn.Module):
    """Looks at a convolution's output as it lies in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(1, 2, 3), nn.Linear(2 * 36, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.convolution(images).view(-1, 72))


def test_a_net_that_preparation_breaks_is_trained_as_it_is() -> None:
    images = torch.rand(2, 1, 8, 8)
    net = _prepared(Viewing(), images)
    assert net.training and all(parameter.requires_grad for parameter in net.parameters())
    net(images.clone()).sum().backward()
    usual = _prepared(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), images)
    assert isinstance(usual[0], InputConv2d)
    with pytest.raises(BenchError, match=r"cannot take images of shape \(3, 8, 8\): "):
        _prepared(Viewing(), torch.rand(2, 3, 8, 8))
