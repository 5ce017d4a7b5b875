"""Our metrics against Quantus 0.6 and captum on the same maps: quantus.json, made by make_quantus_values.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.attacks.losses import picked
from bench.attributions.curves import insertion_curve
from bench.attributions.heat_maps import heat_maps
from bench.attributions.pixel_scores import pixel_ranks
from bench.attributions.quality.complexity import effective_complexity, entropy, histogram_entropy, sparseness
from bench.attributions.quality.faithfulness import (
    References,
    extreme_pixels,
    infidelity,
    right_without,
    sensitivity,
    sufficiency,
)
from bench.attributions.quality.imputation import impute
from bench.attributions.quality.localisation import pointing_game, relevance_mass, top_k_inside
from bench.attributions.registry import attribute, find_method
from bench.attributions.similarity import PreparedMaps
from tests.attributions.quality import quantus_inputs as given

QUANTUS: dict[str, Any] = json.loads((Path(__file__).parent / "quantus.json").read_text())

IDS = torch.arange(given.COUNT)


def same(found: Tensor, name: str, tolerance: float = 1e-5) -> bool:
    expected = torch.tensor(QUANTUS[name], dtype=torch.float64)
    return torch.allclose(found.double(), expected, rtol=tolerance, atol=tolerance)


def test_sparseness_entropy_and_effective_complexity_are_quantus_s() -> None:
    maps = heat_maps(given.maps())
    assert same(sparseness(maps), "sparseness")
    assert same(entropy(maps), "entropy")
    assert same(effective_complexity(maps, 0.01) * given.SIZE**2, "effective_complexity")


def test_the_histogram_s_entropy_is_quantus_s() -> None:
    assert same(histogram_entropy(given.maps(), 100), "histogram_entropy")


def test_raw_infidelity_is_quantus_s_under_the_same_perturbations() -> None:
    model, images, labels = given.net(), given.images(), given.labels()
    copies = given.perturbed()
    foretold = torch.stack([(given.maps() * (images - copy)).sum((1, 2, 3)) for copy in copies], 1)
    changes = torch.stack([picked(model(images), labels) - picked(model(copy), labels) for copy in copies], 1)
    assert same(infidelity(foretold, changes)[0], "infidelity")


def test_infidelity_at_the_best_scale_is_captum_s_over_the_net_s_own_change() -> None:
    model, images, labels = given.net(), given.images(), given.labels()
    maps = attribute(model, images, labels, find_method("gradient"))
    copies = given.perturbed()
    foretold = torch.stack([(maps * (images - copy)).sum((1, 2, 3)) for copy in copies], 1)
    changes = torch.stack([picked(model(images), labels) - picked(model(copy), labels) for copy in copies], 1)
    assert bool(((foretold * changes).sum(1) > 0).all())  # where captum's scale is negative, ours is 0
    found = infidelity(foretold, changes)[1] * changes.square().mean(1)
    assert same(found, "captum_infidelity")


def test_max_sensitivity_and_local_lipschitz_are_quantus_s_under_the_same_perturbations() -> None:
    model, images, labels = given.net(), given.images(), given.labels()
    maps = attribute(model, images, labels, find_method("gradient"))
    found = []
    for copy in given.perturbed():
        moved = attribute(model, copy, labels, find_method("gradient"))
        found.append(sensitivity(maps, moved, (copy - images).flatten(1).norm(dim=1)))
    largest, lipschitz = torch.stack(found).amax(0)
    assert same(largest, "max_sensitivity")
    assert same(lipschitz * maps.flatten(1).norm(dim=1), "local_lipschitz", 1e-4)


def test_imputed_pixels_are_quantus_s() -> None:
    images, maps = given.images()[:2], given.maps()[:2, 0]
    removed = pixel_ranks(maps, torch.arange(2)) < 40
    assert same(impute(images, removed).flatten(1), "imputed", 1e-4)


def test_road_is_quantus_s() -> None:
    chosen = [most for most, _ in extreme_pixels(given.maps()[:, 0].abs(), IDS, list(given.SHARES))]
    right = [right_without(given.net(), given.images(), given.labels(), most).float().mean() for most in chosen]
    assert same(torch.stack(right), "road")


def test_sufficiency_is_quantus_s_where_the_batch_is_its_own_reference() -> None:
    predictions, maps = given.net()(given.images()).argmax(1), given.maps()[:, 0].abs()
    references = References(torch.arange(given.COUNT), predictions, maps)
    distances = references.distances(maps)
    similar = (distances <= 0.9 * distances.max()) & ~torch.eye(given.COUNT, dtype=torch.bool)
    found = sufficiency(similar, predictions, references)
    assert same(found.nan_to_num(0.0), "sufficiency")  # without a similar map Quantus says 0, we say nothing


def test_a_pixel_that_is_zero_in_all_maps_does_not_spoil_sufficiency_as_in_quantus() -> None:
    maps = given.maps()[:, 0].abs()
    maps[:, 0, 0] = 0.0
    predictions = given.net()(given.images()).argmax(1)
    references = References(torch.arange(given.COUNT), predictions, maps)
    assert bool(references.distances(maps).isfinite().all())
    assert set(QUANTUS["sufficiency_with_a_pixel_that_is_always_zero"]) == {0.0}


def test_the_deletion_curve_is_quantus_s_pixel_flipping() -> None:
    black, images = torch.zeros(1, 1, 1, 1), given.images()
    ranks = pixel_ranks(given.maps()[:, 0].abs(), IDS)
    curve = insertion_curve(
        given.net(), black.expand_as(images), given.labels(), ranks, background=images, steps=given.SIZE
    )
    assert same(curve[:, 1:], "deletion")


def test_localisation_is_quantus_s() -> None:
    maps, inside = heat_maps(given.maps()), given.inside()
    assert same(pointing_game(maps, inside), "pointing_game")
    assert same(relevance_mass(maps, inside), "relevance_mass")
    prepared = PreparedMaps(maps, 10 / given.SIZE**2)
    assert same(top_k_inside(prepared.top, maps, inside), "top_k_inside")


def test_an_empty_map_does_not_hit_as_it_does_in_quantus() -> None:
    maps = heat_maps(given.maps())
    maps[:3] = 0.0
    assert pointing_game(maps, given.inside())[:3].tolist() == [0.0, 0.0, 0.0]
    assert QUANTUS["pointing_game_with_three_empty_maps"][:3] == [True, True, True]


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_no_metric_depends_on_the_scale_of_a_map(scale: float) -> None:
    maps = heat_maps(given.maps())
    for measure in (sparseness, entropy, lambda one: effective_complexity(one, 0.01)):
        torch.testing.assert_close(measure(maps * scale), measure(maps), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        relevance_mass(maps * scale, given.inside()), relevance_mass(maps, given.inside()), rtol=1e-4, atol=1e-6
    )
