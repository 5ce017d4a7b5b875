"""Metrics where the answer is known beforehand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bench.attributions.quality.complexity import effective_complexity, entropy, histogram_entropy, sparseness
from bench.attributions.quality.controls import controls
from bench.attributions.quality.cost import metered
from bench.attributions.quality.faithfulness import References, infidelity, right_without, sensitivity, sufficiency
from bench.attributions.quality.imputation import impute
from bench.attributions.quality.localisation import Tiles, make_mosaics, relevance_mass, top_k_inside
from bench.attributions.registry import attribute, find_method
from bench.core.errors import BenchError
from bench.data import ImageDataset


def test_one_pixel_is_as_sparse_as_a_map_can_be_and_a_constant_map_not_at_all() -> None:
    maps = torch.zeros(3, 4, 5)
    maps[0, 2, 3] = 7.0
    maps[1] = 0.1
    assert sparseness(maps)[:2].tolist() == pytest.approx([1 - 1 / 20, 0.0])
    assert entropy(maps)[:2].tolist() == pytest.approx([0.0, math.log(20)])
    assert effective_complexity(maps, 0.01)[:2].tolist() == pytest.approx([1 / 20, 1.0])
    assert all(bool(found[2].isnan()) for found in (sparseness(maps), entropy(maps), effective_complexity(maps, 0.01)))


def test_the_histogram_of_evenly_spread_values_has_the_largest_entropy() -> None:
    even, constant = torch.arange(100.0).view(1, 1, 10, 10), torch.ones(1, 1, 10, 10)
    assert histogram_entropy(even, 10).item() == pytest.approx(math.log(10))
    assert histogram_entropy(constant, 10).item() == 0.0


def test_infidelity_is_zero_for_what_foretells_up_to_scale_and_one_for_what_does_not_or_with_the_wrong_sign() -> None:
    changes = torch.tensor([1.0, -2.0, 3.0]).expand(3, 3)
    foretold = torch.stack([3.0 * changes[0], -changes[0], torch.tensor([2.0, 1.0, 0.0])])
    raw, scaled = infidelity(foretold, changes)
    assert scaled.tolist() == pytest.approx([0.0, 1.0, 1.0], abs=1e-6)
    assert raw[0].item() == pytest.approx(4 * (1 + 4 + 9) / 3)
    assert bool(infidelity(foretold, 0 * changes)[1].isnan().all())


def test_sensitivity_of_a_map_that_doubles_is_one_and_of_an_empty_map_undefined() -> None:
    maps = torch.ones(2, 1, 2, 2)
    maps[1] = 0.0
    largest, lipschitz = sensitivity(maps, 2 * maps, torch.tensor([0.5, 0.5]))
    assert largest[0].item() == 1.0 and lipschitz[0].item() == 2.0
    assert bool(largest[1].isnan())


@pytest.mark.parametrize("scale", [1e-38, 1e-23, 1e-17, 1.0, 1e17])
def test_infidelity_and_sensitivity_do_not_depend_on_the_scale(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    changes, other = torch.randn(2, 4, 50, generator=generator)
    expected = 1 - ((other * changes).sum(1).clamp_min(0) / other.norm(dim=1) / changes.norm(dim=1)).square()
    for net in (1.0, scale):
        assert infidelity(changes * scale, changes * net)[1].tolist() == pytest.approx([0.0] * 4, abs=1e-6)
        torch.testing.assert_close(infidelity(other * scale, changes * net)[1], expected, rtol=1e-5, atol=1e-6)
    maps, moved = torch.randn(2, 4, 3, 5, 5, generator=generator)
    length = (moved - maps).flatten(1).norm(dim=1) / maps.flatten(1).norm(dim=1)
    largest, lipschitz = sensitivity(maps * scale, moved * scale, torch.full((4,), 0.5))
    torch.testing.assert_close(largest, length)
    torch.testing.assert_close(lipschitz, 2 * length)


def test_sufficiency_counts_the_nearest_maps_but_not_the_example_itself() -> None:
    maps = torch.tensor([[[0.0, 1.0]], [[0.1, 1.0]], [[1.0, 0.0]], [[1.0, 0.1]]])
    references = References(torch.arange(4), torch.tensor([0, 0, 1, 0]), maps)
    near = references.nearest(maps, torch.arange(4), 1)
    assert near.nonzero()[:, 1].tolist() == [1, 0, 3, 2]
    assert sufficiency(near, torch.tensor([0, 0, 1, 0]), references).tolist() == [1.0, 1.0, 0.0, 0.0]


def test_a_plane_is_imputed_as_itself_whatever_the_other_images() -> None:
    plane = (torch.arange(9.0)[:, None] + 2 * torch.arange(11.0)).expand(2, 1, 9, 11) / 30
    removed = torch.zeros(2, 9, 11, dtype=torch.bool)
    removed[0, 2:7, 3:8] = True
    removed[1, 1:8, 1:10] = True
    torch.testing.assert_close(impute(plane, removed), plane, atol=1e-4, rtol=0)
    torch.testing.assert_close(impute(plane[:1], removed[:1]), impute(plane, removed)[:1], atol=1e-6, rtol=0)


class OneCorner(nn.Module):
    """Says class 1 if the upper left quadrant is bright, else class 0; sees nothing else."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        bright = images[:, :, :4, :4].mean((1, 2, 3)) - 0.5
        return torch.stack([-bright, bright], 1)


def test_road_changes_the_answer_only_where_the_net_looks() -> None:
    images = torch.zeros(1, 1, 8, 8)
    images[..., :4, :4] = 1.0
    corner = images[:, 0] > 0
    elsewhere = ~corner & (torch.arange(8) > 5)
    label = torch.tensor([1])
    assert right_without(OneCorner(), images, label, elsewhere).tolist() == [True]
    assert right_without(OneCorner(), images, label, corner).tolist() == [False]


@pytest.mark.parametrize("tiles", ["quarters", "whole"])
@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_a_mosaic_holds_its_own_image_where_it_says_and_three_other_classes_elsewhere(
    tiles: Tiles, size: tuple[int, int]
) -> None:
    labels = torch.arange(24) % 6
    images = (40 * labels).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 2, *size).contiguous()
    data = ImageDataset("grey", "test", images, labels, class_names=tuple("abcdef"), source="made")
    ids = torch.arange(3, 15)
    images, inside = make_mosaics(data, ids, tiles, seed=0, device=torch.device("cpu"))
    classes = (images[:, 0] * 255 / 40).round().long()
    for row, label in enumerate(labels[ids].tolist()):
        assert set(classes[row][inside[row]].tolist()) == {label}
        corners = classes[row][[0, 0, -1, -1], [0, -1, 0, -1]].tolist()
        assert len(set(corners)) == 4
    assert len({tuple(one.flatten().tolist()) for one in inside}) == 4  # all places come up
    again = make_mosaics(data, ids[5:7], tiles, seed=0, device=torch.device("cpu"))
    assert torch.equal(again[0], images[5:7]) and torch.equal(again[1], inside[5:7])


def test_mosaics_of_one_class_are_refused() -> None:
    data = ImageDataset(
        "one",
        "test",
        torch.zeros(4, 1, 8, 8, dtype=torch.uint8),
        torch.ones(4).long(),
        class_names=("a", "b"),
        source="x",
    )
    with pytest.raises(BenchError, match="two classes"):
        make_mosaics(data, torch.arange(4), "quarters", seed=0, device=torch.device("cpu"))


def test_a_map_of_the_quadrant_is_found_there_and_an_even_map_to_its_share() -> None:
    inside = torch.zeros(2, 4, 4, dtype=torch.bool)
    inside[:, :2, :2] = True
    maps = torch.stack([inside[0].float(), torch.ones(4, 4)])
    assert relevance_mass(maps, inside).tolist() == [1.0, 0.25]
    assert top_k_inside(torch.tensor([[0, 1], [0, 15]]), maps, inside).tolist() == [1.0, 0.5]


def test_controls_know_nothing_of_the_net_but_the_blurred_map() -> None:
    images, labels, ids = torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 0]), torch.arange(3)
    random, sobel, image, blurred = controls(find_method("gradient"))
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).requires_grad_(False)
    for control in (random, sobel, image):
        first, second = (attribute(net, images, labels, control, example_ids=ids) for net in (OneCorner(), linear))
        assert torch.equal(first, second)
    assert torch.equal(attribute(linear, images, labels, image), images)
    alone = attribute(linear, images[1:2], labels[1:2], random, example_ids=ids[1:2])
    assert torch.equal(alone, attribute(linear, images, labels, random, example_ids=ids)[1:2])
    assert attribute(OneCorner(), images, labels, blurred)[0, 0].argmax() == 0  # the corner still is where the mass is


def test_the_cost_of_a_map_is_counted_in_gradients_and_passes() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).requires_grad_(False)
    images, labels = torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 0])
    with metered(net, torch.device("cpu")) as cost:
        attribute(net, images, labels, find_method("integrated_gradients").given(steps=5))
    assert (cost.gradients, cost.forward_passes) == (15, 15) and cost.microseconds > 0
    attribute(net, images, labels, find_method("gradient"))
    assert cost.gradients == 15  # nothing stays behind
