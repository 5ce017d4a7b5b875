from __future__ import annotations

import pytest
import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

from bench.attacks.apgd.ascent import ApgdLoss
from bench.attacks.apgd.attack import apgd
from bench.attacks.losses import dlr, targeted_dlr
from bench.attacks.norms import distance
from bench.core.threat import NORMS, Norm
from bench.data import ImageDataset

NAMES: dict[Norm, str] = {"linf": "Linf", "l2": "L2", "l1": "L1"}
EPS: dict[Norm, float] = {"linf": 0.01, "l2": 0.2, "l1": 1.5}


@pytest.fixture(scope="module")
def right(standard: nn.Module, fashion_test: ImageDataset) -> tuple[Tensor, Tensor]:
    images, labels = fashion_test.pixels(slice(0, 50)), fashion_test.labels[:50]
    right = standard(images).argmax(1) == labels
    return images[right], labels[right]


def attack(
    model: nn.Module, images: Tensor, labels: Tensor, norm: Norm, loss: ApgdLoss, steps: int = 15, first: int = 0,
    batch: int = 64,
) -> Tensor:  # fmt: skip
    ids, restarts = torch.arange(first, first + len(images)), 3 if loss == "dlr-targeted" else 1
    radii = torch.full((len(images),), EPS[norm], dtype=torch.float64)
    return apgd(
        model, images, labels, ids, norm=norm, eps=radii, loss=loss, iterations=steps, restarts=restarts,
        batch_size=batch,
    )  # fmt: skip


def original(model: nn.Module, images: Tensor, labels: Tensor, norm: Norm, loss: ApgdLoss, steps: int = 15) -> Tensor:
    whole = AutoAttack(model, norm=NAMES[norm], eps=EPS[norm], seed=0)
    chosen = whole.apgd_targeted if loss == "dlr-targeted" else whole.apgd
    chosen.n_iter = chosen.n_iter_orig = steps
    chosen.n_iter_2, chosen.n_iter_min, chosen.size_decr = 3, 1, 1
    chosen.n_restarts = 1
    if loss == "dlr-targeted":
        chosen.n_target_classes = 3
    else:
        chosen.loss = loss
    return chosen.perturb(images, labels)


@pytest.mark.parametrize(
    ("norm", "loss"),
    [
        pytest.param(norm, loss, marks=[pytest.mark.slow] if loss == "dlr" and norm != "linf" else [])
        for norm in NORMS
        for loss in ("ce", "dlr", "dlr-targeted")
    ],
)
def test_apgd_alone_breaks_as_much_as_the_original(
    norm: Norm, loss: ApgdLoss, standard: nn.Module, right: tuple[Tensor, Tensor]
) -> None:
    images, labels = right
    theirs = standard(original(standard, images, labels, norm, loss=loss)).argmax(1) != labels
    found = attack(standard, images, labels, norm, loss=loss)
    ours = standard(found).argmax(1) != labels
    assert 0.1 < theirs.float().mean() < 0.9
    # the starts differ, and with them what happens at the very boundary
    assert int((theirs & ~ours).sum()) <= 1
    assert (distance(found - images, norm) <= EPS[norm] * (1 + 1e-5)).all()
    assert (found >= 0).all() and (found <= 1).all()


@pytest.mark.parametrize("norm", NORMS)
def test_no_example_depends_on_its_neighbours(norm: Norm, standard: nn.Module, right: tuple[Tensor, Tensor]) -> None:
    images, labels = right[0][:20], right[1][:20]
    whole = attack(standard, images, labels, norm, loss="dlr-targeted")
    part = attack(standard, images[5:9], labels[5:9], norm, loss="dlr-targeted", first=5, batch=5)
    assert torch.allclose(whole[5:9], part, atol=1e-3)


def test_the_losses_are_the_originals_and_defined_for_few_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(50, 10, generator=generator), torch.randint(10, (50,), generator=generator)
    targets = (labels + 3) % 10
    theirs = AutoAttack(nn.Identity(), eps=0.1)
    theirs.apgd_targeted.y_target = targets
    assert torch.allclose(dlr(logits, labels), theirs.apgd.dlr_loss(logits, labels))
    assert torch.allclose(
        targeted_dlr(logits, labels, targets), theirs.apgd_targeted.dlr_loss_targeted(logits, labels), atol=1e-6
    )
    for classes in (2, 3):
        few, truth = logits[:, :classes], labels % classes
        assert dlr(few, truth).isfinite().all()
        assert targeted_dlr(few, truth, (truth + 1) % classes).isfinite().all()


def test_broken_examples_take_no_more_gradients(standard: nn.Module, right: tuple[Tensor, Tensor]) -> None:
    images, labels = right
    counts = []

    class Counted(nn.Module):
        def forward(self, batch: Tensor) -> Tensor:
            counts.append(len(batch) if batch.requires_grad else 0)
            return standard(batch)

    ids = torch.arange(len(images))
    apgd(
        Counted(), images, labels, ids, norm="linf", eps=torch.full((len(images),), 0.1).double(), loss="ce",
        iterations=100, restarts=1,
    )  # fmt: skip
    assert sum(counts) < 15 * len(images)


@pytest.mark.parametrize("norm", NORMS)
def test_each_example_keeps_its_own_radius(norm: Norm, standard: nn.Module, right: tuple[Tensor, Tensor]) -> None:
    images, labels = right[0][:24], right[1][:24]
    radii = EPS[norm] * torch.linspace(0.1, 4.0, 24, dtype=torch.float64)
    found = apgd(standard, images, labels, torch.arange(24), norm=norm, eps=radii, loss="ce", iterations=12, restarts=1)
    moved = distance(found - images, norm)
    assert (moved <= radii * (1 + 1e-5)).all() and (moved > radii.max() / 2).any()
    alone = [
        apgd(
            standard,
            images[i : i + 1],
            labels[i : i + 1],
            torch.tensor([i]),
            norm=norm,
            eps=radii[i : i + 1],
            loss="ce",
            iterations=12,
            restarts=1,
        )
        for i in (2, 20)
    ]
    assert torch.allclose(torch.cat(alone), found[[2, 20]], atol=1e-4)
