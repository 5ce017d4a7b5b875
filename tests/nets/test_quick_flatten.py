from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from bench.nets.preparation import prepare_net
from bench.nets.quick_flatten import QuickFlatten


def test_gradients_come_back_in_the_format_of_the_images_at_any_order() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Softplus(beta=3.0), nn.Flatten(), nn.Linear(6 * 6 * 6, 4)).double()
    net = prepare_net(copy.deepcopy(plain))
    assert type(net[2]) is QuickFlatten
    seen: list[Tensor] = []
    net[0].register_full_backward_hook(lambda layer, into, gradients: seen.append(*gradients))
    found = []
    for one in (plain, net):
        images = torch.rand(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        images.requires_grad_(True)
        (gradient,) = torch.autograd.grad(one(images).pow(2).sum(), images, create_graph=True)
        of_weights = torch.autograd.grad(gradient.pow(2).sum(), list(one.parameters()), allow_unused=True)
        found.append([gradient, *of_weights])
    for expected, value in zip(*found, strict=True):
        torch.testing.assert_close(value, expected)
    assert seen and all(one.is_contiguous(memory_format=torch.channels_last) for one in seen)


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 5)])
def test_images_given_by_the_user_get_no_hooks(shape: tuple[int, ...]) -> None:
    given = torch.rand(shape).contiguous(
        memory_format=torch.channels_last if len(shape) == 4 else torch.contiguous_format
    )
    given.requires_grad_(True)
    assert QuickFlatten()(given).shape == (2, given[0].numel()) and not given._backward_hooks


def test_functional_transforms_see_the_same_derivatives() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Softplus(beta=3.0), nn.Flatten(), nn.Linear(6 * 6 * 6, 4)).double()
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    jacobians = [torch.func.jacrev(net)(images) for net in (plain, prepare_net(copy.deepcopy(plain)))]
    torch.testing.assert_close(*jacobians)
