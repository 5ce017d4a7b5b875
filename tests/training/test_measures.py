from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.attributions.gradients import gradient_maps
from bench.data import ImageDataset
from bench.training.measures import gradient_alignment, gradient_norm, gradient_stability
from tests.attacks.linear import linear_problem


def test_a_linear_models_gradients_are_perfectly_stable() -> None:
    model, images, labels = linear_problem(20)
    assert set(gradient_stability(model, images, labels, torch.arange(20)).values()) == {1.0}


def test_stability_falls_with_the_radius_and_does_not_depend_on_the_batch(
    standard: nn.Module, fashion_test: ImageDataset
) -> None:
    images, labels = fashion_test.pixels(slice(0, 300)), fashion_test.labels[:300]
    stability = gradient_stability(standard, images, labels, torch.arange(300))
    values = [stability[name] for name in ("4/255", "8/255", "16/255")]
    assert 1.0 > values[0] > values[1] > values[2] > 0.0
    parts = [
        gradient_stability(standard, images[part], labels[part], part)
        for part in (torch.arange(100), torch.arange(100, 300))
    ]
    assert stability["8/255"] == pytest.approx((parts[0]["8/255"] + 2 * parts[1]["8/255"]) / 3, abs=1e-3)


def test_alignment_is_one_with_the_own_gradients_and_minus_one_with_their_opposite(
    standard: nn.Module, fashion_test: ImageDataset
) -> None:
    images, labels = fashion_test.pixels(slice(0, 30)), fashion_test.labels[:30]
    own = gradient_maps(standard, images, labels)
    assert gradient_alignment(standard, images, labels, 3 * own) == pytest.approx(1.0, abs=1e-3)
    assert gradient_alignment(standard, images, labels, -own) == pytest.approx(-1.0, abs=1e-3)


def test_the_norm_is_the_root_mean_square_over_examples_in_any_batches(
    standard: nn.Module, fashion_test: ImageDataset
) -> None:
    images, labels = fashion_test.pixels(slice(0, 300)), fashion_test.labels[:300]
    norms = gradient_maps(standard, images, labels).flatten(1).norm(dim=1)
    assert gradient_norm(standard, images, labels) == pytest.approx(float(norms.square().mean().sqrt()), abs=1e-3)
