from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bench.data import ImageDataset
from tests.protocols.attribution_suites import make, run, values

SUITE = """
schema_version = 1
name = "gradient_alignment"
version = 1
protocol = "gradient_alignment"
examples = 24

[parameters]
attributions = [{ name = "gradient" }, { name = "smoothgrad", samples = 3, sigma = 0.15 }]
"""


def test_of_a_linear_net_the_norm_is_its_weights_and_the_cosines_are_theirs(
    tmp_path: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval()
    weights = next(net.parameters()).detach()
    protocol = make(tmp_path, SUITE)
    records = run(protocol, net, fashion_test).records
    images, labels = fashion_test.pixels(slice(0, 24)).requires_grad_(True), fashion_test.labels[:24]
    own = weights[labels]
    (of_standard,) = torch.autograd.grad(standard(images).gather(1, labels[:, None]).sum(), images)
    rows = records[records["attribution"] == "gradient"]
    assert rows["gradient_norm"].to_numpy() == pytest.approx(own.norm(dim=1).numpy(), rel=1e-5)
    for column, other in (("target_alignment", of_standard), ("image_alignment", images.detach())):
        cosines = F.cosine_similarity(own, other.flatten(1))
        expected = cosines if column == "target_alignment" else cosines.abs()
        assert rows[column].to_numpy() == pytest.approx(expected.numpy(), abs=1e-5)
    assert values(protocol, records)["gradient_norm", "", None] == pytest.approx(
        float(own.norm(dim=1).mean()), rel=1e-5
    )


def test_the_reference_points_along_its_own_gradient_and_logits_scaled_move_the_norm_alone(
    tmp_path: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = standard

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return 2.0 * self.net(images)

    protocol = make(tmp_path, SUITE)
    plain, doubled = (run(protocol, net, fashion_test).records for net in (standard, Doubled()))
    assert plain["target_alignment"][plain["attribution"] == "gradient"].to_numpy() == pytest.approx(1.0, abs=1e-6)
    assert doubled["gradient_norm"].to_numpy() == pytest.approx(2 * plain["gradient_norm"].to_numpy(), rel=1e-5)
    for column in ("target_alignment", "image_alignment"):
        assert doubled[column].to_numpy() == pytest.approx(plain[column].to_numpy(), abs=1e-6)


def test_numbers_do_not_depend_on_the_batch(tmp_path: Path, lga: nn.Module, fashion_test: ImageDataset) -> None:
    protocol = make(tmp_path, SUITE)
    whole = run(protocol, lga, fashion_test).records
    part = run(protocol, lga, fashion_test, start=8, stop=16, batch_size=3).records
    same = whole[whole["example_id"].between(8, 15)].reset_index(drop=True)
    for column in ("gradient_norm", "target_alignment", "image_alignment"):
        assert np.allclose(part[column], same[column], atol=1e-5), column


def test_the_gradients_of_the_references_maps_are_counted_too(
    tmp_path: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    found = run(make(tmp_path, SUITE), standard, fashion_test, stop=4)
    assert found.counters["gradient_evaluations"] == 4 * (1 + 1 + 3)
