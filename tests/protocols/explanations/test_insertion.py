from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench.data import ImageDataset
from bench.protocols import EvaluationContext
from bench.protocols.explanations.insertion import background_of
from tests.protocols.attribution_suites import INSERTION, make, run, values


def test_curves_areas_and_metrics_agree(tmp_path: Path, standard: nn.Module, fashion_test: ImageDataset) -> None:
    protocol = make(tmp_path, INSERTION)
    records = run(protocol, standard, fashion_test).records
    points = [name for name in records if name.startswith("p_")]
    assert len(points) == 8 and points[0] == "p_0.0000" and points[-1] == "p_1.0000"
    curves = records[points].to_numpy()
    assert records["area"].to_numpy() == pytest.approx(np.trapezoid(curves, dx=1 / 7, axis=1), abs=1e-6)
    with torch.no_grad():
        probabilities = standard(fashion_test.pixels(slice(0, 24))).softmax(1)
    expected = probabilities.gather(1, fashion_test.labels[:24, None]).squeeze(1)
    for game, end in (("insertion", "p_1.0000"), ("deletion", "p_0.0000")):
        rows = records[(records["game"] == game) & (records["attribution"] == "gradient") & (records["attack"] == "")]
        assert rows[end].to_numpy() == pytest.approx(expected.numpy(), abs=1e-4)
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
    own = ImageDataset("own", "test", images, torch.zeros(10, dtype=torch.int64), ("a", "b"), "made")
    for data, expected in ((fashion_test, [0.2860]), (own, (images / 255.0).mean((0, 2, 3)).tolist())):
        context = EvaluationContext(standard, "net", data, 0, 1, 0, torch.device("cpu"), 8)
        assert background_of(context, "mean").flatten().tolist() == pytest.approx(expected, abs=1e-6)
        assert not background_of(context, "black").any()
