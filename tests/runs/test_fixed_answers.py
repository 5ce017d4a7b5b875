from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bench.data import ImageDataset
from bench.leaderboard.evidence.answers import same_answers
from bench.nets.preparation import prepare_net
from bench.runs.fixed_answers import fixed_answers
from tests.conftest import torch_threads

CPU = torch.device("cpu")


class Changed(nn.Module):
    """A net of the same weights with another forward."""

    def __init__(self, net: nn.Module, change: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.change = net, change

    def forward(self, images: Tensor) -> Tensor:
        return self.change(self.net, images)


def test_answers_agree_over_threads_and_preparation(standard: nn.Module, fashion_test: ImageDataset) -> None:
    expected = fixed_answers(standard, fashion_test, CPU)
    with torch_threads(2):
        assert same_answers(expected, fixed_answers(prepare_net(copy.deepcopy(standard)), fashion_test, CPU))
    assert expected.deviation == 0.0 and len(expected.logits) == 6


@pytest.mark.parametrize(
    "change",
    [
        lambda net, images: net(images * 0.99),
        lambda net, images: 1.01 * net(images),
        lambda net, images: net(images.flip(3)),
        lambda net, images: net((images * 255).round() / 255 * 0.9 + 0.05),
        lambda net, images: torch.where(images.std() < 0.3, net(images) / 2, net(images)),  # on noise alone
    ],
)
def test_another_forward_answers_otherwise(
    standard: nn.Module, fashion_test: ImageDataset, change: Callable[[nn.Module, Tensor], Tensor]
) -> None:
    expected = fixed_answers(standard, fashion_test, CPU)
    assert not same_answers(expected, fixed_answers(Changed(standard, change), fashion_test, CPU))


def test_a_random_net_is_like_itself(standard: nn.Module, fashion_test: ImageDataset) -> None:
    net = Changed(standard, lambda net, images: net(images + 0.1 * torch.randn_like(images)))
    first, second = (fixed_answers(net, fashion_test, CPU) for _ in range(2))
    assert first.deviation > 0 and same_answers(first, second)


def test_a_net_that_fails_on_noise_is_like_itself_and_many_classes_become_few(fashion_test: ImageDataset) -> None:
    wide = nn.Sequential(nn.Flatten(), nn.Linear(784, 1000))

    def refuse(net: nn.Module, images: Tensor) -> Tensor:
        if images.mean() > 0.45:
            raise ValueError("only photographs")
        return net(images)

    data = replace(fashion_test, class_names=tuple(map(str, range(1000))))
    found = fixed_answers(Changed(wide, refuse), data, CPU)
    assert {len(row) for row in found.logits} == {12} and found.logits[-1][0] is None
    assert same_answers(found, fixed_answers(Changed(wide, refuse), data, CPU))
    assert not same_answers(found, fixed_answers(wide, data, CPU))
