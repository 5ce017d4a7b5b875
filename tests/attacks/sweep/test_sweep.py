from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.attacks import verification
from bench.attacks.norms import distance as norm_distance
from bench.attacks.sweep.restarts import SweepSettings
from bench.attacks.sweep.sweep import NormSweep
from bench.attacks.verification import AttackResults, pull_inside
from bench.core.threat import NORMS, Norm
from tests.attacks.linear import Decoy, Summing, linear_problem

RADII: dict[Norm, list[float]] = {
    "linf": [0.02, 0.05, 0.1, 0.15, 0.2],
    "l2": [0.5, 1.0, 1.5, 2.0],
    "l1": [5.0, 15.0, 30.0],
}
TWO_RADII = {norm: radii[:2] for norm, radii in RADII.items()}


def sweep(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    radii: dict[Norm, list[float]],
    *,
    batch_size: int = 256,
    ids: Tensor | None = None,
    settings: SweepSettings | None = None,
) -> AttackResults:
    with torch.no_grad():
        results = AttackResults.start(model(images).argmax(1), labels)
    ids = torch.arange(len(images)) if ids is None else ids
    for norm, values in radii.items():
        NormSweep(
            model, images, labels, ids, norm=norm, radii=values, settings=settings or SweepSettings(steps=10, losses=("margin",)), results=results,
            batch_size=batch_size,
        ).run()  # fmt: skip
    return results


def verdicts(results: AttackResults, radii: dict[Norm, list[float]]) -> Tensor:
    return torch.stack([results.broken(norm, eps) for norm in radii for eps in radii[norm]], dim=1)


@pytest.mark.parametrize("norm", NORMS)
def test_on_a_linear_classifier_the_verdicts_are_the_exact_ones(norm: Norm) -> None:
    model, images, labels = linear_problem()
    exact = model.exact_distance(images, norm)
    radii = [float(exact.quantile(share)) for share in (0.1, 0.3, 0.5, 0.7, 0.9)]
    results = sweep(model, images, labels, {norm: radii}, settings=SweepSettings(steps=40, losses=("margin",)))
    for eps in radii:
        clearly_broken = exact < 0.995 * eps
        clearly_robust = exact > 1.0001 * eps
        assert results.broken(norm, eps)[clearly_broken].all(), (
            "the attack misses examples within 0.5 % of the boundary"
        )
        assert not results.broken(norm, eps)[clearly_robust].any(), (
            "an example is called broken below its exact distance"
        )
    assert (results.distances[norm] >= exact * (1 - 1e-4)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_all_verdicts_hold_when_checked_from_outside(
    standard: nn.Module, fashion_images: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch, norm: Norm
) -> None:
    """Look at the very images that were verified, and judge each again with numpy and the plain model."""
    judged = 0
    original = verification.verify

    def spy(model: nn.Module, images: Tensor, clean: Tensor, labels: Tensor, eps: Tensor, norm: Norm) -> object:
        nonlocal judged
        verified, distances, predictions = original(model, images, clean, labels, eps=eps, norm=norm)
        repaired = pull_inside(images, clean, eps, norm)[verified]
        delta = repaired.double().numpy() - clean[verified].double().numpy()
        order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
        lengths = np.linalg.norm(delta.reshape(len(delta), -1), ord=order, axis=1)
        assert (lengths <= eps[verified].double().numpy() * (1 + 1e-6)).all()
        assert float(repaired.min()) >= 0.0 and float(repaired.max()) <= 1.0
        assert (standard(repaired).argmax(1) != labels[verified]).all()
        judged += int(verified.sum())
        return verified, distances, predictions

    monkeypatch.setattr(verification, "verify", spy)
    results = sweep(standard, *fashion_images, {norm: RADII[norm]})
    assert judged == results.claims - results.rejected > 30


def test_robust_accuracy_never_rises_with_the_radius(
    standard: nn.Module, fashion_images: tuple[Tensor, Tensor]
) -> None:
    results = sweep(standard, *fashion_images, RADII)
    for norm, radii in RADII.items():
        broken = torch.stack([results.broken(norm, eps) for eps in sorted(radii)])
        assert (broken[1:] >= broken[:-1]).all()


def test_an_example_found_in_one_norm_counts_in_every_ball_that_holds_it(
    standard: nn.Module, fashion_images: tuple[Tensor, Tensor]
) -> None:
    results = sweep(standard, *fashion_images, {"linf": [0.05]})
    found = (results.found_in["linf"] >= 0) & (results.distances["linf"] > 0)
    assert found.any()
    assert torch.isfinite(results.distances["l2"][found]).all()
    largest = float(results.distances["l2"][found].max())
    assert results.broken("l2", largest * 1.01)[found].all()
    # a perturbation of at most eps a pixel has an L2 norm of at most eps * sqrt(784)
    assert (results.distances["l2"][found] <= 0.05 * 28 * (1 + 1e-5)).all()


def test_misclassified_images_are_broken_at_every_radius_without_an_attack(
    standard: nn.Module, fashion_images: tuple[Tensor, Tensor]
) -> None:
    images, labels = fashion_images
    wrong = (labels + 1) % 10
    results = sweep(standard, images, wrong, {"linf": [0.02]})
    right = standard(images).argmax(1) == wrong
    assert results.broken("linf", 1e-9)[~right].all()


@pytest.mark.parametrize("batch_size", [1, 7])
def test_the_batch_size_leaves_every_verdict(
    standard: nn.Module, fashion_images: tuple[Tensor, Tensor], batch_size: int
) -> None:
    images, labels = fashion_images
    few = images[: 5 + batch_size], labels[: 5 + batch_size]
    assert torch.equal(
        verdicts(sweep(standard, *few, TWO_RADII), TWO_RADII),
        verdicts(sweep(standard, *few, TWO_RADII, batch_size=batch_size), TWO_RADII),
    )


def test_shards_in_any_order_leave_every_verdict(at_linf: nn.Module, fashion_images: tuple[Tensor, Tensor]) -> None:
    images, labels = (one[:32] for one in fashion_images)
    whole = verdicts(sweep(at_linf, images, labels, TWO_RADII), TWO_RADII)
    parts = torch.empty_like(whole)
    for shard in (torch.arange(20, 32), torch.arange(0, 9), torch.arange(9, 20)):
        parts[shard] = verdicts(sweep(at_linf, images[shard], labels[shard], TWO_RADII, ids=shard), TWO_RADII)
    assert torch.equal(whole, parts)


def test_example_ids_key_the_random_starts(at_linf: nn.Module, fashion_images: tuple[Tensor, Tensor]) -> None:
    images, labels = fashion_images
    one_step = SweepSettings(steps=1, losses=("margin",))
    first = sweep(at_linf, images, labels, {"l2": [1.5]}, settings=one_step)
    other = sweep(at_linf, images, labels, {"l2": [1.5]}, settings=one_step, ids=torch.arange(64) + 1000)
    assert not torch.equal(first.distances["l2"], other.distances["l2"])


def test_patience_costs_no_verdict_on_the_shipped_models(
    standard: nn.Module, fashion_images: tuple[Tensor, Tensor]
) -> None:
    eager = sweep(standard, *fashion_images, RADII, settings=SweepSettings(10, ("margin",), 1))
    patient = sweep(standard, *fashion_images, RADII, settings=SweepSettings(10, ("margin",), 0))
    differing = (verdicts(eager, RADII) != verdicts(patient, RADII)).float().mean()
    assert float(differing) <= 0.01
    assert eager.gradient_evaluations <= patient.gradient_evaluations


def test_a_second_loss_breaks_at_least_what_one_breaks(
    at_linf: nn.Module, fashion_images: tuple[Tensor, Tensor]
) -> None:
    one = sweep(at_linf, *fashion_images, {"l2": [1.5]}, settings=SweepSettings(10, ("cross_entropy",)))
    two = sweep(at_linf, *fashion_images, {"l2": [1.5]}, settings=SweepSettings(10, ("cross_entropy", "margin")))
    assert (two.broken("l2", 1.5) >= one.broken("l2", 1.5)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_restarts_begin_in_a_wider_ball_and_end_in_the_radius(norm: Norm) -> None:
    """On a net that nothing breaks: how far from the image the attack's points are, step by step."""
    images, labels = torch.full((3, 1, 6, 6), 0.5), torch.zeros(3, dtype=torch.int64)
    seen: list[float] = []

    class Unbreakable(nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            seen.append(float(norm_distance(points.detach() - images, norm).max()))
            score = 0.01 * points.flatten(1).sum(1)
            return torch.stack([torch.full_like(score, 9.0), score], 1)

    eps = {"linf": 0.05, "l2": 0.3, "l1": 1.5}[norm]
    results = AttackResults.start(labels, labels)
    settings = SweepSettings(10)
    NormSweep(
        Unbreakable(),
        images,
        labels,
        torch.arange(3),
        norm=norm,
        radii=[eps],
        settings=settings,
        results=results,
        check_every=1,
    ).run()
    first, restart = seen[:11], seen[11:22]
    assert max(first) <= eps * (1 + 1e-5)
    assert max(restart[:3]) > 1.5 * eps
    assert max(restart[5:]) <= eps * (1 + 1e-5)


@pytest.mark.parametrize(("targets", "broken"), [(0, False), (1, False), (2, True), (5, True)])
def test_restarts_towards_classes_break_what_the_nearest_class_hides(targets: int, broken: bool) -> None:
    images, labels = torch.full((4, 1, 4, 4), 0.5), torch.zeros(4, dtype=torch.int64)
    settings = SweepSettings(10, ("margin", "margin"), targets=targets)
    assert sweep(Decoy(), images, labels, {"l1": [3.0]}, settings=settings).broken("l1", 3.0).tolist() == [broken] * 4


class Saturating(nn.Module):
    """A net whose cross-entropy gradient is exactly zero in float32 wherever it is right."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return 1e4 * logits


def test_saturated_logits_do_not_hide_a_net_from_the_attack(
    standard: nn.Module, fashion_images: tuple[Tensor, Tensor]
) -> None:
    plain = sweep(standard, *fashion_images, {"linf": [0.1]}, settings=SweepSettings(20, ("cross_entropy",)))
    scaled = sweep(
        Saturating(standard), *fashion_images, {"linf": [0.1]}, settings=SweepSettings(20, ("cross_entropy",))
    )
    robust = [(~results.broken("linf", 0.1)).float().mean() for results in (plain, scaled)]
    assert float(robust[1]) <= float(robust[0]) + 0.05


def test_progress_reports_every_example_exactly_once(
    standard: nn.Module, fashion_images: tuple[Tensor, Tensor]
) -> None:
    images, labels = fashion_images
    results = AttackResults.start(standard(images).argmax(1), labels)
    seen: list[int] = []
    NormSweep(
        standard, images, labels, torch.arange(64), norm="linf", radii=[0.02, 0.1], settings=SweepSettings(5, ("margin",)), results=results,
        batch_size=16, on_progress=seen.append,
    ).run()  # fmt: skip
    assert sum(seen) == 64


def test_the_attack_leaves_no_gradient_on_the_parameters(fashion_images: tuple[Tensor, Tensor]) -> None:
    from bench.catalog.models import load_model, resolve_models

    model = load_model(resolve_models(["standard"])[0])
    sweep(model, *fashion_images, {"linf": [0.05]})
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("norm", NORMS)
def test_a_net_that_first_sums_the_image_is_attacked(norm: Norm) -> None:
    images, labels = torch.full((3, 1, 3, 3), 0.4), torch.zeros(3, dtype=torch.int64)
    assert sweep(Summing(), images, labels, {norm: [9.0]}).broken(norm, 9.0).all()
