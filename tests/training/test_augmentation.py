from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.training.augmentation import crop_and_flip


@settings(max_examples=25)
@given(st.integers(0, 1000))
def test_image_and_map_move_together(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(6, 3, 8, 8, generator=generator) + 0.1
    moved, maps = crop_and_flip(images, -2 * images, generator)
    assert maps is not None and torch.equal(maps, -2 * moved)


def test_every_result_is_a_shifted_or_flipped_window_of_its_own_padded_image() -> None:
    images = torch.arange(5 * 64, dtype=torch.float32).view(5, 1, 8, 8) + 1
    moved, nothing = crop_and_flip(images, None, torch.Generator().manual_seed(0))
    assert nothing is None
    padded = torch.nn.functional.pad(images, [4] * 4)
    for index in range(5):
        windows = [padded[index, 0, top : top + 8, left : left + 8] for top in range(9) for left in range(9)]
        assert any(
            torch.equal(moved[index, 0], window) or torch.equal(moved[index, 0], window.flip(1)) for window in windows
        )


def test_offsets_and_flips_take_all_their_values() -> None:
    images = torch.zeros(2000, 1, 8, 8)
    images[:, 0, 4, 2] = 1.0
    moved, _ = crop_and_flip(images, None, torch.Generator().manual_seed(1))
    seen = moved.sum(0)[0]
    assert (seen[:, :7] > 0).sum() >= 50  # nine offsets each way, cut at the edge, and both orientations
    assert 0.2 < float(moved.sum() / 2000) <= 1.0
