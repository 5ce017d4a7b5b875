from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bench.protocols.robustness.paths import HALVINGS, JUMP, ROUGH, Path


class OfBrightness(nn.Module):
    """Two logits, whose difference is a function of the mean pixel."""

    def __init__(self, margin: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, images: Tensor) -> Tensor:
        margin = self.margin(images.flatten(1).mean(1))
        return torch.stack([margin, torch.zeros_like(margin)], 1)


def surprises(margin: Callable[[Tensor], Tensor], scale: float = 1.0) -> tuple[float, float]:
    """Along a path from brightness 0.2 to 0.3, of two images."""
    start, labels = torch.full((2, 1, 4, 4), 0.2), torch.zeros(2, dtype=torch.int64)
    net = OfBrightness(lambda mean: scale * margin(mean))
    rough, jump = Path(net, start, start + 0.1, labels).surprises(halvings=HALVINGS)
    assert rough[0] == rough[1] and jump[0] == jump[1]
    return float(rough[0]), float(jump[0])


@pytest.mark.parametrize(
    "margin",
    [
        lambda mean: 1.0 - mean,
        lambda mean: 1.0 - mean**2,
        lambda mean: 1.0 - (mean - 0.2313).relu(),
        lambda mean: 20.0 * torch.tanh((0.5 - mean) / 0.1),
        lambda mean: 1.0 + (mean - 0.2313).relu() - 3.0 * (mean - 0.2713).relu(),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_what_follows_its_gradient_is_neither_rough_nor_does_it_jump_kinks_included(
    margin: Callable[[Tensor], Tensor], scale: float
) -> None:
    rough, jump = surprises(margin, scale)
    assert rough < ROUGH / 1.5 and jump < JUMP / 10


def test_a_single_step_in_a_slope_is_a_jump() -> None:
    _, jump = surprises(lambda mean: 1.0 - mean - 0.02 * (mean > 0.2713))
    assert jump == pytest.approx(0.02 / 0.12, rel=0.1)


@pytest.mark.parametrize("stairs", [50.0, 200.0, 3000.0])
def test_stairs_whose_gradient_is_passed_straight_through_are_rough(stairs: float) -> None:
    rough, _ = surprises(lambda mean: 1.0 - (mean + ((stairs * mean).floor() / stairs - mean).detach()))
    assert (rough > ROUGH) is (stairs < 100.0), "as many stairs as pieces and more are a slope"


def test_ripples_are_rough() -> None:
    rough, _ = surprises(lambda mean: 1.0 - mean - 0.02 * torch.sin(5000.0 * mean))
    assert rough > 0.8


def test_a_margin_that_hardly_moves_says_nothing() -> None:
    assert surprises(lambda mean: 1e6 - 0.001 * (mean > 0.25) + 0.0 * mean) == (0.0, 0.0)
