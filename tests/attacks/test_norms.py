from __future__ import annotations

import pytest
import torch

from bench.attacks.norms import at_unit_size, distance
from bench.attacks.steps import steepest_step
from bench.core.threat import NORMS, Norm


@pytest.mark.parametrize("exponent", [-100, -40, 0, 40, 100])
def test_at_unit_size_nothing_is_rounded(exponent: int) -> None:
    values = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    values[3] = 0.0
    scaled = at_unit_size(values * 2.0**exponent)
    largest = scaled.flatten(1).abs().amax(1)
    assert ((largest >= 0.5) & (largest < 1.0))[[0, 1, 2, 4]].all() and largest[3] == 0
    assert torch.equal(scaled, at_unit_size(values))
    ratio = scaled[0] / values[0]
    assert torch.equal(ratio, ratio.flatten()[0].expand_as(ratio))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [2.0**-130, 2.0**-80, 2.0**80])
def test_a_steepest_step_has_its_length_whatever_the_gradients_size(norm: Norm, scale: float) -> None:
    gradient = torch.randint(-64, 65, (4, 1, 5, 5), generator=torch.Generator().manual_seed(0)).float()
    images, size = torch.full_like(gradient, 0.5), torch.full((4,), 0.25)
    step = steepest_step(gradient * scale, images, size, norm, sparsity=torch.full((4,), 0.3))
    assert torch.equal(step, steepest_step(gradient, images, size, norm, sparsity=torch.full((4,), 0.3)))
    torch.testing.assert_close(distance(step, norm), size)
