from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.attacks.norms import exact_distances
from bench.attacks.sweep.search import SearchNet
from bench.attacks.verification import AttackResults, pull_inside, verify
from bench.core.threat import NORMS, Norm


def test_a_point_outside_the_ball_is_judged_from_inside_it(
    standard: nn.Module, fashion_images: tuple[Tensor, Tensor]
) -> None:
    images, labels = fashion_images
    noise = torch.rand_like(images)  # any image at all is "adversarial", but not within 0.001
    verified, distances, _ = verify(standard, noise, images, labels, eps=torch.full((64,), 0.001), norm="linf")
    right = standard(images).argmax(1) == labels
    assert float(verified[right].float().mean()) < 0.1
    assert (distances["linf"] <= 0.001 * (1 + 1e-6)).all()


def test_a_point_that_fools_nobody_is_rejected(standard: nn.Module, fashion_images: tuple[Tensor, Tensor]) -> None:
    images, labels = fashion_images
    verified, _, predictions = verify(standard, images, images, labels, eps=torch.full((64,), 0.1), norm="linf")
    assert torch.equal(verified, predictions != labels)


@pytest.mark.parametrize("norm", NORMS)
def test_rounding_outside_the_ball_is_repaired_and_nothing_else_is_touched(norm: Norm) -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(32, 1, 8, 8, generator=generator)
    candidate = (clean + 0.1 * torch.randn(32, 1, 8, 8, generator=generator)).clamp(0, 1)
    exact = exact_distances(candidate, clean)[norm]
    for factor, changed in ((1.0 - 1e-7, True), (1.0 + 1e-3, False)):
        eps = (exact * factor).float()
        repaired = pull_inside(candidate, clean, eps, norm)
        assert (exact_distances(repaired, clean)[norm] <= eps.double() * (1 + 1e-6)).all()
        assert float((repaired - candidate).abs().max()) < 1e-6
        if not changed:
            assert torch.equal(repaired, candidate)


def test_pixels_outside_the_box_are_clipped_before_judging(
    standard: nn.Module, fashion_images: tuple[Tensor, Tensor]
) -> None:
    images, _ = fashion_images
    repaired = pull_inside(images + 0.5, images, torch.full((64,), 0.5), "linf")
    assert float(repaired.max()) <= 1.0


def test_the_ledger_keeps_the_smallest_distance_in_every_norm() -> None:
    results = AttackResults.start(torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert results.broken("l2", 0.1).tolist() == [False, True]
    for length in (0.5, 0.2, 0.9):
        results.record(
            torch.tensor([0]), "l2", {norm: torch.tensor([length]).double() for norm in NORMS}, torch.tensor([3])
        )
    assert float(results.distances["linf"][0]) == pytest.approx(0.2)
    assert results.broken("l2", 0.2)[0] and not results.broken("l2", 0.19)[0]
    assert results.predictions["l1"].tolist() == [3, 1]


@pytest.mark.parametrize("answer", [float("nan"), float("inf"), -float("inf")])
def test_an_answer_that_is_no_number_counts_as_broken(answer: float) -> None:
    class Silent(nn.Module):
        """Class 0 for images that are multiples of 1/255, and no number for any class, or for one, else."""

        def forward(self, images: Tensor) -> Tensor:
            off = ((images * 255) - (images * 255).round()).abs().flatten(1).amax(1) > 1e-3
            logits = torch.stack([images.flatten(1).sum(1) + 9.0, images.flatten(1).mean(1)], 1)
            logits[:, 0] = torch.where(off, answer, logits[:, 0])
            return logits

    clean = torch.full((2, 1, 2, 2), 100 / 255)
    eps = torch.tensor([0.1, 0.1])
    verified, _, predictions = verify(Silent(), clean + 0.0501, clean, torch.tensor([0, 0]), eps=eps, norm="linf")
    assert verified.all() and (predictions == -1).all()
    assert SearchNet(Silent(), "float32", "cpu").claims(torch.zeros(2), Silent()(clean + 0.0501)).all()
