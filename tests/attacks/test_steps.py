from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.attacks.norms import distance
from bench.attacks.steps import _kth_largest, random_start, steepest_step
from bench.core.threat import NORMS, Norm


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_a_step_has_the_asked_length_and_grows_the_linearised_loss(norm: Norm, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    gradient = torch.randn(4, 1, 5, 5, generator=generator)
    images = 0.1 + 0.8 * torch.rand(4, 1, 5, 5, generator=generator)
    size = 0.1 + torch.rand(4, generator=generator)
    step = steepest_step(gradient, images, size, norm, sparsity=torch.full((4,), 0.2))
    assert torch.allclose(distance(step, norm), size, rtol=1e-4)
    assert ((step * gradient).flatten(1).sum(1) > 0).all()


def test_an_l1_step_moves_the_asked_share_of_the_largest_movable_pixels() -> None:
    gradient = torch.tensor([9.0, -8.0, 7.0, 6.0]).view(1, 1, 2, 2)
    images = torch.tensor([1.0, 0.5, 0.5, 0.5]).view(1, 1, 2, 2)  # the largest cannot grow any further
    step = steepest_step(gradient, images, torch.tensor([1.0]), "l1", sparsity=torch.tensor([0.5]))
    assert step.flatten().tolist() == [0.0, -0.5, 0.5, 0.0]


@pytest.mark.parametrize("norm", NORMS)
def test_a_zero_gradient_gives_a_zero_step_and_no_nan(norm: Norm) -> None:
    zero = torch.zeros(2, 1, 3, 3)
    step = steepest_step(zero, zero + 0.5, torch.ones(2), norm, sparsity=torch.ones(2))
    assert torch.equal(step, zero)


@pytest.mark.parametrize("norm", NORMS)
def test_a_random_start_lies_in_the_ball(norm: Norm) -> None:
    clean = torch.rand(8, 1, 5, 5)
    eps = torch.linspace(0.01, 3.0, 8)
    start = random_start(clean, eps, norm, torch.rand(8, 1, 5, 5))
    assert (distance(start, norm) <= eps * (1 + 1e-5)).all()


@pytest.mark.parametrize("shares", [[0.1] * 6, [0.1, 0.5] * 3, [0.01, 0.1, 0.3, 0.5, 0.9, 1.0]])
def test_the_entry_of_a_rank_is_that_of_a_sort_however_few_ranks_are_asked_for(shares: list[float]) -> None:
    values = torch.rand(6, 200, generator=torch.Generator().manual_seed(0))
    values[:, 50:90] = 0.0
    ordered = values.sort(dim=1, descending=True).values
    expected = [
        float(row[max(1, int(torch.tensor(share) * 200)) - 1]) for row, share in zip(ordered, shares, strict=True)
    ]
    assert _kth_largest(values, torch.tensor(shares)).tolist() == expected
