from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench.attributions.curves import insertion_curve
from bench.attributions.gradients import gradient_maps
from bench.attributions.heat_maps import heat_maps
from bench.attributions.pixel_scores import pixel_ranks
from bench.data import ImageDataset
from bench.protocols import EvaluationContext
from bench.protocols.explanations.insertion import background_of
from tests.protocols.attribution_suites import INSERTION, make, run, values


def test_areas_are_those_under_the_curves_and_metrics_their_means(
    tmp_path: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    protocol = make(tmp_path, INSERTION)
    records = run(protocol, standard, fashion_test).records
    images, labels = fashion_test.pixels(slice(0, 24)), fashion_test.labels[:24]
    ranks, mean = (
        pixel_ranks(heat_maps(gradient_maps(standard, images, labels)), torch.arange(24)),
        torch.full_like(images, 0.286),
    )
    for game, shown, ground in (("insertion", images, mean), ("deletion", mean, images)):
        curve = insertion_curve(
            standard, shown, labels, ranks, background=ground, steps=protocol.parameters.steps
        ).numpy()
        rows = records[(records["game"] == game) & (records["attribution"] == "gradient") & (records["attack"] == "")]
        assert rows["area"].to_numpy() == pytest.approx(np.trapezoid(curve, dx=1 / 7, axis=1), rel=2**-10, abs=1e-5)
        metric = values(protocol, records)[f"{game}/gradient", "", None]
        assert metric == pytest.approx(rows["area"].mean(), abs=1e-6)
    assert len(records) == 24 * 2 * 3


def test_a_map_orders_pixels_better_than_chance(tmp_path: Path, lga: nn.Module, fashion_test: ImageDataset) -> None:
    protocol = make(tmp_path, INSERTION)
    found = values(protocol, run(protocol, lga, fashion_test).records)
    assert found["insertion/gradient", "", None] > found["insertion/random_order", "", None]
    assert found["deletion/gradient", "", None] < found["deletion/random_order", "", None]
    assert 0 < found["insertion/gradient", "frame", 0.031372] != found["insertion/gradient", "", None]


def test_the_background_is_the_data_sets_mean_or_black(standard: nn.Module, fashion_test: ImageDataset) -> None:
    images = torch.randint(0, 256, (10, 3, 4, 4), dtype=torch.uint8)
    own = ImageDataset("own", "test", images, torch.zeros(10, dtype=torch.int64), class_names=("a", "b"), source="made")
    for data, expected in ((fashion_test, [0.2860]), (own, (images / 255.0).mean((0, 2, 3)).tolist())):
        context = EvaluationContext(standard, "net", data, 0, stop=1, seed=0, device=torch.device("cpu"), batch_size=8)
        assert background_of(context, "mean").flatten().tolist() == pytest.approx(expected, abs=1e-6)
        assert not background_of(context, "black").any()
