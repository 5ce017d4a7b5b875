from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from bench.attributions.curves import curve_area, insertion_curve, shown_counts
from bench.attributions.pixel_scores import pixel_ranks

ONE = torch.arange(1)


class Counting(nn.Module):
    """The share of white pixels, as the probability of class 1."""

    def forward(self, images: Tensor) -> Tensor:
        share = images.mean((1, 2, 3)).clamp(1e-9, 1 - 1e-9)
        return torch.stack([torch.log(1 - share), torch.log(share)], dim=1)


def test_the_curve_shows_exactly_the_share_of_pixels_and_starts_and_ends_right() -> None:
    images, labels = torch.ones(2, 1, 5, 8), torch.ones(2, dtype=torch.int64)
    curve = insertion_curve(
        Counting(),
        images,
        labels,
        pixel_ranks(torch.rand(2, 5, 8), torch.arange(2)),
        background=torch.zeros(1),
        steps=8,
    )
    torch.testing.assert_close(curve, torch.arange(9).div(8).expand(2, 9), atol=1e-6, rtol=0)
    torch.testing.assert_close(curve_area(curve), torch.full((2,), 0.5))


def test_deletion_is_insertion_with_image_and_background_exchanged() -> None:
    images, labels = torch.ones(1, 1, 4, 4), torch.ones(1, dtype=torch.int64)
    curve = insertion_curve(
        Counting(), torch.zeros_like(images), labels, pixel_ranks(torch.rand(1, 4, 4), ONE), background=images, steps=4
    )
    torch.testing.assert_close(curve, torch.tensor([[1.0, 0.75, 0.5, 0.25, 0.0]]), atol=1e-6, rtol=0)


def test_ends_of_another_map_s_curve_stand_for_those_that_would_be_computed() -> None:
    images, labels, black = torch.rand(3, 1, 4, 4), torch.ones(3, dtype=torch.int64), torch.zeros(1)
    first, second = (pixel_ranks(torch.rand(3, 4, 4), torch.arange(3)) for _ in range(2))
    known = insertion_curve(Counting(), images, labels, first, background=black, steps=4)[:, [0, -1]]
    for steps in (1, 4):
        whole = insertion_curve(Counting(), images, labels, second, background=black, steps=steps)
        short = insertion_curve(Counting(), images, labels, second, background=black, steps=steps, ends=known)
        assert torch.equal(whole, short)


def test_pixels_appear_in_the_order_of_the_map() -> None:
    maps = torch.zeros(1, 3, 4)
    maps[0, 1, 2], maps[0, 2, 3], maps[0, 0, 0] = 3.0, 2.0, 1.0
    ranks = pixel_ranks(maps, ONE)[0]
    assert (ranks[1, 2], ranks[2, 3], ranks[0, 0]) == (0, 1, 2)
    assert ranks.flatten().sort().values.tolist() == list(range(12))


def test_a_map_that_says_nothing_is_no_better_than_chance() -> None:
    """Class 1 is seen in the upper half alone, which the order of the pixels' places would show first."""

    class Upper(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            share = images[:, :, :4].mean((1, 2, 3)).clamp(1e-9, 1 - 1e-9)
            return torch.stack([torch.log(1 - share), torch.log(share)], dim=1)

    images, labels, black = torch.ones(100, 1, 8, 8), torch.ones(100, dtype=torch.int64), torch.zeros(1)
    ranks = pixel_ranks(torch.zeros(100, 8, 8), torch.arange(100))
    area = curve_area(insertion_curve(Upper(), images, labels, ranks, background=black, steps=16)).mean()
    assert float(area) == pytest.approx(0.5, abs=0.03)


def test_the_best_order_beats_any_other() -> None:
    """Class 1 is seen in one corner alone."""

    class Corner(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen = images[:, 0, :2, :2].mean((1, 2))
            return torch.stack([torch.zeros_like(seen), 8 * seen - 4], dim=1)

    images, labels, truth = torch.ones(1, 1, 6, 6), torch.ones(1, dtype=torch.int64), torch.zeros(1, 6, 6)
    truth[0, :2, :2] = 1.0
    areas = [
        float(
            curve_area(
                insertion_curve(Corner(), images, labels, pixel_ranks(order, ONE), background=torch.zeros(1), steps=12)
            )
        )
        for order in (truth, torch.rand(1, 6, 6), 1 - truth)
    ]
    assert areas[0] > areas[1] > areas[2]


@pytest.mark.parametrize("pixels", [784, 1024, 50176])
def test_counts_go_from_none_to_all(pixels: int) -> None:
    counts = shown_counts(pixels, 20)
    assert counts[0] == 0 and counts[-1] == pixels and len(counts) == 21
    assert all(later > earlier for earlier, later in itertools.pairwise(counts))
