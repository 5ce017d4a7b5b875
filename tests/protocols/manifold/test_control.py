from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.protocols.manifold.control import turned_images


@given(st.integers(0, 2**31), st.floats(0.02, 1.5), st.sampled_from([1, 3]))
def test_the_control_is_as_far_away_in_the_turned_direction_and_inside_the_box(
    seed: int, size: float, channels: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = (3 * torch.rand(6, channels, 8, 8, generator=generator) - 1).clamp(0, 1)
    changes = (images + size * torch.randn(images.shape, generator=generator)).clamp(0, 1) - images
    controls = turned_images(images, changes)
    there = ~controls.isnan().flatten(1).any(1)
    moved, lengths = (controls - images).flatten(1), changes.flatten(1).norm(dim=1)
    assert torch.allclose(moved[there].norm(dim=1), lengths[there], rtol=1e-4)
    assert ((controls[there] >= 0) & (controls[there] <= 1 + 1e-6)).all()
    turned = changes.rot90(dims=(2, 3)).flatten(1)
    assert (moved[there] * turned[there] >= 0).all(), "no pixel moves against the direction"
    room = torch.where(turned > 0, 1 - images.flatten(1), images.flatten(1)).minimum(4 * turned.abs())
    assert (room[~there].norm(dim=1) <= 1.001 * lengths[~there]).all(), "only what the box has no room for is left out"
    assert torch.allclose(turned_images(images[:1], changes[:1]), controls[:1], equal_nan=True)


def test_of_a_direction_without_room_and_of_no_change_there_is_no_control() -> None:
    images = torch.zeros(3, 1, 2, 2)
    images[0, 0, 0, 0] = 1.0
    changes = torch.zeros_like(images)
    changes[0, 0, 0, 0] = -0.5  # turned it darkens a pixel that is black
    changes[1, 0, 0, 1] = 0.5
    controls = turned_images(images, changes)
    assert controls[0].isnan().all() and controls[2].isnan().all()
    assert controls[1].flatten().tolist() == pytest.approx([0.5, 0.0, 0.0, 0.0])
