from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from bench.attacks.losses import LOSS_FUNCTIONS, cross_entropy, dlr, margin, targeted_dlr, wrong_classes
from bench.attacks.target_pairs import nearest_classes


def random_logits(seed: int, classes: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (6,), generator=generator)
    return 3 * torch.randn(6, classes, generator=generator), labels


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 12))
def test_the_margin_is_positive_exactly_when_misclassified(seed: int, classes: int) -> None:
    logits, labels = random_logits(seed, classes)
    assert torch.equal(margin(logits, labels) > 0, logits.argmax(1) != labels)


@settings(max_examples=40)
@given(st.integers(0, 10_000))
def test_cross_entropys_gradient_points_as_torchs_does(seed: int) -> None:
    logits, labels = random_logits(seed)
    logits.requires_grad_(True)
    (ours,) = torch.autograd.grad(cross_entropy(logits, labels).sum(), logits)
    (theirs,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), logits)
    assert torch.allclose(F.cosine_similarity(ours, theirs), torch.ones(6), atol=1e-4)


def test_cross_entropy_keeps_its_gradient_where_torchs_saturates() -> None:
    logits = torch.tensor([[200.0, 0.0, 1.0]], requires_grad=True)
    labels = torch.tensor([0])
    (theirs,) = torch.autograd.grad(F.cross_entropy(logits, labels), logits)
    (ours,) = torch.autograd.grad(cross_entropy(logits, labels).sum(), logits)
    assert float(theirs.abs().max()) == 0.0
    assert float(ours.abs().max()) > 0.5


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_no_loss_changes_when_a_constant_is_added_to_all_logits(shift: float) -> None:
    logits, labels = random_logits(3)
    for loss in LOSS_FUNCTIONS.values():
        assert torch.allclose(loss(logits, labels), loss(logits + shift, labels), atol=1e-2)


def test_dlr_does_not_change_when_logits_are_scaled() -> None:
    logits, labels = random_logits(5)
    assert torch.allclose(dlr(logits, labels), dlr(100 * logits, labels), atol=1e-4)


@pytest.mark.parametrize("classes", [2, 3, 4, 6])
def test_the_targeted_dlr_rises_with_its_target_whichever_class_that_is(classes: int) -> None:
    logits = random_logits(7, classes)[0].requires_grad_(True)
    for target in range(1, classes):
        ordered = logits.argsort(1, descending=True)
        loss = targeted_dlr(logits, ordered[:, 0], ordered[:, target])
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        assert (gradient.gather(1, ordered[:, target : target + 1]) > 1e-3).all()


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_a_label_is_no_wrong_class_also_where_another_class_ties_with_it(classes: int) -> None:
    """APGD-T and FAB-T took whatever came first for the label, which so became its own target."""
    for seed in range(50):
        logits = torch.randn(1, classes, generator=torch.Generator().manual_seed(seed))
        tied = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))[:2]
        logits[0, tied] = 9.0
        label = logits.argmax(1)
        net = torch.nn.Linear(1, classes)
        net.weight.data, net.bias.data = torch.zeros(classes, 1), logits[0]
        found = nearest_classes(net, torch.zeros(1, 1), label, 200, batch_size=4)
        assert sorted([*found[0].tolist(), int(label)]) == list(range(classes))
        assert found[0, 0] == tied.max()
        assert torch.equal(found[:, :1], wrong_classes(logits, label, 1))
