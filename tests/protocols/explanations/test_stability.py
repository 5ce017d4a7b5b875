from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.data import ImageDataset
from bench.leaderboard.labels import name
from bench.protocols.explanations.base import Batch
from bench.protocols.explanations.stability import AttributionStability, perturbed
from tests.protocols.attribution_suites import STABILITY, make, run, values

SMALL, LARGE = 0.015686, 0.062745


def test_aligned_gradients_are_more_stable_and_noise_lowers_stability(
    tmp_path: Path, standard: nn.Module, lga: nn.Module, fashion_test: ImageDataset
) -> None:
    protocol = make(tmp_path, STABILITY)
    found = {
        name: values(protocol, run(protocol, model, fashion_test).records)
        for name, model in (("standard", standard), ("lga", lga))
    }
    for attribution in ("gradient", "smoothgrad"):
        for measure in ("cosine", "spearman", "top_k"):
            name = f"stability/{measure}/{attribution}"
            for eps in (SMALL, LARGE):
                assert found["lga"][name, "uniform", eps] > found["standard"][name, "uniform", eps]
            for numbers in found.values():
                assert numbers[name, "uniform", SMALL] > numbers[name, "uniform", LARGE]
    shift = "stability/centre_shift/gradient"
    assert found["lga"][shift, "uniform", LARGE] < found["standard"][shift, "uniform", LARGE]


def test_without_noise_nothing_changes(tmp_path: Path, standard: nn.Module, fashion_test: ImageDataset) -> None:
    protocol = make(tmp_path, STABILITY.replace("0.015686, 0.062745", "1e-30"))
    records = run(protocol, standard, fashion_test).records
    assert records["cosine"].min() > 1 - 1e-5 and records["top_k"].min() == 1
    assert records["gradient_change"].max() < 1e-3 and (records["prediction_kept"] == 1).all()


class Quadratic(nn.Module):
    """Logit 0 is x'Ax / 2 + b'x, so that its Hessian is A everywhere."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        root = torch.randn(784, 784, generator=generator) / 28
        self.a, self.b = root + root.T, torch.randn(784, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)
        logit = 0.5 * (x @ self.a * x).sum(1) + x @ self.b
        return torch.stack([logit, *[torch.zeros_like(logit)] * 9], dim=1)


def test_the_decomposition_is_exact_on_a_quadratic_net(tmp_path: Path, fashion_test: ImageDataset) -> None:
    labels = torch.zeros_like(fashion_test.labels[:5])
    data = ImageDataset(
        "fashion_mnist", "test", fashion_test.images[:5], labels, class_names=fashion_test.class_names, source="made"
    )
    protocol, net = make(tmp_path, STABILITY.replace("draws = 2", "draws = 1")), Quadratic()
    records = run(protocol, net, data, stop=5).records
    rows = records[(records["attribution"] == "gradient") & (records["eps"] == SMALL)]
    batch = Batch(data.pixels(slice(0, 5)), labels, torch.arange(5), labels)
    moved = (perturbed(batch, SMALL, 0, 0) - batch.images).flatten(1)
    clean = batch.images.flatten(1) @ net.a + net.b
    expected = (moved @ net.a).norm(dim=1)
    assert rows["hessian_change"].tolist() == pytest.approx(expected.tolist(), rel=1e-3)
    assert rows["gradient_change"].tolist() == pytest.approx(expected.tolist(), rel=1e-3)
    norm = (clean + moved @ net.a).norm(dim=1)
    assert rows["gradient_norm"].tolist() == pytest.approx(norm.tolist(), rel=1e-3)
    assert rows["hessian_ratio"].tolist() == pytest.approx((expected / norm).tolist(), rel=1e-3)


def test_the_bound_on_the_cosine_holds_for_every_image(
    tmp_path: Path, standard: nn.Module, lga: nn.Module, fashion_test: ImageDataset
) -> None:
    protocol = make(tmp_path, STABILITY.replace("draws = 2", "draws = 1"))
    for model in (standard, lga):
        records = run(protocol, model, fashion_test).records
        assert ((1 - records["gradient_cosine"]) / 2 <= records["gradient_change_ratio"] ** 2 + 1e-5).all()


def test_a_piecewise_linear_nets_hessian_is_left_out_and_it_is_said(
    tmp_path: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    protocol = make(tmp_path, STABILITY)
    assert isinstance(protocol, AttributionStability)
    result = run(protocol, standard, fashion_test, stop=6)
    assert "piecewise_linear" in {finding.id for finding in result.findings}
    assert result.records["hessian_change"].isna().all()
    assert not any(
        metric.key.metric.startswith("hessian") for metric in protocol.metrics("fashion_mnist", result.records)
    )


def test_noise_is_uniform_in_the_ball_keyed_by_example_and_the_same_direction_at_every_radius() -> None:
    images, ids = torch.full((3, 1, 28, 28), 0.5), torch.tensor([4, 9, 2])
    batch = Batch(images, ids, ids, ids)
    small, large = (perturbed(batch, eps, 1, 0) - images for eps in (0.1, 0.2))
    torch.testing.assert_close(2 * small, large, atol=1e-6, rtol=0)
    assert large.abs().max() <= 0.2 and float(large.flatten(1).std(dim=1).mean()) == pytest.approx(
        0.2 / 3**0.5, rel=0.05
    )
    alone = Batch(images[1:2], ids[1:2], ids[1:2], ids[1:2])
    assert torch.equal(perturbed(alone, 0.1, 1, 0), perturbed(batch, 0.1, 1, 0)[1:2])
    assert not torch.equal(perturbed(batch, 0.1, 0, 0), perturbed(batch, 0.1, 1, 0))
    white = Batch(torch.ones_like(images), ids, ids, ids)
    assert perturbed(white, 0.1, 0, 0).max() <= 1.0


def test_metrics_are_means_over_the_examples_they_name(
    tmp_path: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    protocol = make(tmp_path, STABILITY)
    records = run(protocol, standard, fashion_test).records
    rows = records[(records["attribution"] == "gradient") & (records["eps"] == LARGE)]
    sure = rows[(rows["label"] == rows["prediction"]) & (rows["prediction_kept"] == 1)]
    assert 0 < len(sure) < len(rows) == 24
    metrics = {(name(m.key), m.key.eps): m for m in protocol.metrics("fashion_mnist", records)}
    whole, part = metrics["stability/cosine/gradient", LARGE], metrics["stability_correct/cosine/gradient", LARGE]
    assert whole.value == pytest.approx(rows["cosine"].mean(), abs=1e-6) and whole.n_examples == 24
    assert part.value == pytest.approx(sure["cosine"].mean(), abs=1e-6) and part.n_examples == len(sure)


def test_the_gradients_of_a_map_are_all_counted(
    tmp_path: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    """Every map counted as one gradient, those of smoothgrad and integrated gradients too."""
    maps = '[{ name = "integrated_gradients", steps = 16 }, { name = "smoothgrad", samples = 4 }]'
    suite = re.sub(r"attributions = .*", f"attributions = {maps}\ndecomposition = false", STABILITY)
    found = run(make(tmp_path, suite), standard, fashion_test, stop=3)
    maps_of_an_image = 1 + 2 * 2  # itself, and two draws at two radii
    assert found.counters["gradient_evaluations"] == 3 * (maps_of_an_image * (16 + 4) + 2 * 2)
