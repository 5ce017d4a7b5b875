from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.attacks.norms import distance
from bench.attacks.projections import project, project_l1_box
from bench.core.threat import NORMS, Norm

SEEDS = st.integers(0, 10_000)


def example(seed: int, spread: float = 2.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(5, 1, 6, 6, generator=generator)
    clean[0] = clean[0].round()  # pixels on the edge of the box
    delta = spread * torch.randn(5, 1, 6, 6, generator=generator)
    eps = 0.01 + 5 * torch.rand(5, generator=generator)
    return clean, delta, eps


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=60)
@given(seed=SEEDS, spread=st.sampled_from([0.01, 0.3, 3.0]))
def test_a_projection_lies_in_the_ball_and_in_the_box(norm: Norm, seed: int, spread: float) -> None:
    clean, delta, eps = example(seed, spread)
    projected = project(clean + delta, clean, eps, norm)
    assert float(projected.min()) >= 0.0 and float(projected.max()) <= 1.0
    lengths = distance(projected.double() - clean.double(), norm)
    assert (lengths <= eps.double() * (1 + 1e-5) + 1e-6).all()


@pytest.mark.parametrize("norm", NORMS)
@settings(max_examples=40)
@given(seed=SEEDS)
def test_projecting_twice_changes_nothing(norm: Norm, seed: int) -> None:
    clean, delta, eps = example(seed)
    once = project(clean + delta, clean, eps, norm)
    assert torch.allclose(project(once, clean, eps, norm), once, atol=2e-5)


@settings(max_examples=60)
@given(seed=SEEDS)
def test_the_l1_projection_is_the_nearest_point(seed: int) -> None:
    """Against an exact solution in float64, found from the sorted break points of the threshold's equation."""
    clean, delta, eps = example(seed)
    found = project_l1_box(delta, clean, eps).double()
    for row in range(len(clean)):
        exact = _exact_l1(delta[row].double().flatten(), clean[row].double().flatten(), float(eps[row]))
        assert torch.allclose(found[row].flatten(), exact, atol=5e-5)


def _exact_l1(delta: torch.Tensor, clean: torch.Tensor, eps: float) -> torch.Tensor:
    magnitude = delta.abs()
    room = torch.where(delta > 0, 1 - clean, clean)

    breaks = torch.cat([torch.zeros(1).double(), magnitude, (magnitude - room).clamp_min(0)]).unique()
    lengths = torch.minimum((magnitude - breaks[:, None]).clamp_min(0), room).sum(1)  # falling
    if lengths[0] <= eps:
        return torch.copysign(torch.minimum(magnitude, room), delta)
    last = int((lengths > eps).sum()) - 1
    share = (lengths[last] - eps) / (lengths[last] - lengths[last + 1])
    threshold = torch.lerp(breaks[last], breaks[last + 1], share)
    return torch.copysign(torch.minimum((magnitude - threshold).clamp_min(0), room), delta)


def test_each_example_keeps_its_own_radius() -> None:
    clean = torch.full((3, 1, 4, 4), 0.5)
    eps = torch.tensor([0.1, 0.2, 0.3])
    projected = project(clean + 10.0, clean, eps, "linf")
    assert torch.allclose((projected - clean).flatten(1).amax(1), eps)
