from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import bench.nets.quick_softplus as quick_softplus
from bench.nets.preparation import prepare_net, usual_layers
from bench.nets.quick_softplus import QuickSoftplus, softplus
from tests.nets.operations import operations_seen

EXTREMES = [0.0, -0.0, 1e-30, -1e-30, 6.6, 6.7, -6.7, 29.0, -29.0, 500.0, -500.0, 1e38, -1e38, float("inf")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(st.lists(st.floats(-60, 60, width=32), min_size=1), st.sampled_from([0.5, 1.0, 3.0, 20.0, 100.0]))
def test_values_are_those_of_torch_within_a_rounding(dtype: torch.dtype, numbers: list[float], beta: float) -> None:
    inputs = torch.tensor([*numbers, *EXTREMES, -float("inf"), float("nan")], dtype=dtype)
    found, expected = softplus(inputs, beta), F.softplus(inputs, beta)
    eps = torch.finfo(dtype).eps
    bound = 2.1e-9 if dtype == torch.float64 else 0.0  # exp(-20): F.softplus is the identity from 20 / beta on
    torch.testing.assert_close(found, expected, atol=(2 * eps + bound) / beta, rtol=4 * eps, equal_nan=True)
    assert found.dtype == dtype


@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_first_second_and_third_derivatives_are_those_of_torch(beta: float) -> None:
    found = []
    for function in (softplus, F.softplus):
        inputs = torch.linspace(-5, 5, 41, dtype=torch.float64).requires_grad_(True)
        first = torch.autograd.grad(function(inputs, beta).sin().sum(), inputs, create_graph=True)[0]
        second = torch.autograd.grad(first.square().sum(), inputs, create_graph=True)[0]
        third = torch.autograd.grad(second.sum(), inputs)[0]
        found.append(torch.stack([first, second, third]).detach())
    torch.testing.assert_close(*found)


def test_functional_transforms_see_the_same_hessian() -> None:
    flat = torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    hessians = [
        torch.func.hessian(lambda x, one=one: one(3 * x, 2.0).pow(2).sum())(flat) for one in (softplus, F.softplus)
    ]
    torch.testing.assert_close(*hessians)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_left_to_torch(dtype: torch.dtype) -> None:
    """sigmoid(-z) of -5 is .9933, which bfloat16 knows to two digits: its logarithm would be of one."""
    inputs = torch.linspace(-8, 8, 33).to(dtype)
    assert torch.equal(softplus(inputs, 3.0), F.softplus(inputs, 3.0))


def test_a_prepared_net_takes_it_and_may_be_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = quick_softplus._Softplus.apply
    monkeypatch.setattr(quick_softplus._Softplus, "apply", lambda *given: (calls.append(1), original(*given))[1])
    net = nn.Sequential(nn.Linear(4, 3), nn.Softplus(3.0), nn.Softplus(1.0, threshold=2.0), nn.Softplus(-1.0))
    images = torch.randn(5, 4)
    expected = net(images)
    quick = prepare_net(copy.deepcopy(net))
    assert [type(layer) for layer in quick] == [nn.Linear, QuickSoftplus, nn.Softplus, nn.Softplus]
    # another threshold, or a negative beta, is left to torch
    torch.testing.assert_close(quick(images), expected, atol=1e-6, rtol=1e-6)
    assert calls == [1]
    assert [type(layer) for layer in usual_layers(quick)] == [type(layer) for layer in net]
    assert torch.equal(quick(images), expected)


def test_an_operation_mode_sees_the_softplus() -> None:
    images: Tensor = torch.randn(3)
    assert "softplus" in operations_seen(lambda: QuickSoftplus(3.0)(images.requires_grad_(True)))
