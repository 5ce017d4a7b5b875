from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import bench.nets.input_conv as input_conv
from bench.nets.input_conv import InputConv2d
from bench.nets.preparation import prepare_net
from tests.nets.operations import operations_seen

# channels in and out, kernel, stride, padding, dilation
SHAPES = [(1, 6, 4, 2, 1, 1), (1, 6, 5, 1, 2, 1), (1, 6, 3, 1, 0, 1), (1, 6, 3, 2, 2, 2), (3, 32, 4, 2, 1, 1)]


def pair(few: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    torch.manual_seed(0)
    plain = (
        nn.Conv2d(few, out, kernel, stride=stride, padding=padding, dilation=dilation).double().requires_grad_(False)
    )
    quick = prepare_net(nn.Sequential(copy.deepcopy(plain)))[0]
    return plain, quick


def images(channels: int = 1) -> Tensor:
    return torch.rand(3, channels, 17, 22, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def used(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often the quick gradient has been taken."""
    calls = []
    original = input_conv.F.fold
    monkeypatch.setattr(input_conv.F, "fold", lambda *given: (calls.append(1), original(*given))[1])
    return lambda: len(calls)


@pytest.mark.parametrize("shape", SHAPES)
def test_values_gradients_and_second_derivatives_are_those_of_conv2d(
    shape: tuple[int, int, int, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = used(monkeypatch)
    found = []
    for convolution in pair(*shape):
        given = images(shape[0]).requires_grad_(True)
        values = convolution(given)
        (gradient,) = torch.autograd.grad(values.pow(3).sum(), given, create_graph=True)
        (second,) = torch.autograd.grad(gradient.pow(2).sum(), given)
        found.append((values.detach(), gradient.detach(), second))
    assert count() > 0
    for plain, quick in zip(*found, strict=True):
        torch.testing.assert_close(quick, plain)


def test_functional_transforms_see_the_same_hessian() -> None:
    plain, quick = pair(*SHAPES[0])
    flat = images()[0].flatten()
    hessians = [
        torch.func.hessian(lambda x, net=net: net(x.view(1, 1, 17, 22)).pow(3).sum())(flat) for net in (plain, quick)
    ]
    torch.testing.assert_close(*hessians)


def test_weights_that_are_trained_and_layers_that_would_be_slower_take_the_usual_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = used(monkeypatch)
    net = prepare_net(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 3))).double()
    assert [type(layer) for layer in net] == [InputConv2d, nn.Conv2d]
    net(images().requires_grad_(True)).sum().backward()
    assert count() == 0 and net[0].weight.grad.abs().sum() > 0
    few_out, wide, quick = (nn.Conv2d(3, 16, 3), nn.Conv2d(3, 32, 5), nn.Conv2d(3, 32, 3))
    assert [type(one) for one in prepare_net(nn.Sequential(few_out, wide, quick))] == [
        nn.Conv2d,
        nn.Conv2d,
        InputConv2d,
    ]


def test_the_weights_file_of_a_prepared_net_is_the_same(standard: nn.Module) -> None:
    before = standard.state_dict()
    after = prepare_net(copy.deepcopy(standard)).state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_operation_mode_sees_the_convolution_where_the_image_alone_asks_for_a_gradient() -> None:
    _, quick = pair(*SHAPES[0])
    assert "conv2d" in operations_seen(lambda: quick(images().requires_grad_(True)))
