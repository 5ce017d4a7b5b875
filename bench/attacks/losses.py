"""Attack losses: larger is worse for the classifier; a positive margin is a misclassification."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

LossName = Literal["cross_entropy", "margin", "dlr", "softmax_cross_entropy"]
LOSSES: tuple[LossName, ...] = get_args(LossName)


def others(logits: Tensor, labels: Tensor) -> Tensor:
    """The logits with the true class's set to minus infinity."""
    return logits.scatter(1, labels[:, None], -torch.inf)


def wrong_classes(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """The `count` classes other than the labels with the largest logits, in their order; (N, K), (N,) -> (N, count).

    All K - 1 where there are fewer. Which of two equal logits is the larger says the number of the class.
    """
    ranked = others(logits, labels).argsort(dim=1, descending=True, stable=True)
    return ranked[:, : min(count, logits.shape[1] - 1)]


def answers(logits: Tensor) -> Tensor:
    """The class of the largest logit, -1 where a logit is NaN or infinite, which no label equals; (N, K) -> (N,)."""
    return torch.where(logits.isfinite().all(1), logits.argmax(1), -1)


def picked(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,) logit `labels[i]` of example i."""
    return logits.gather(1, labels[:, None]).squeeze(1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy in log-odds form, log((1 - p_y) / p_y), per example; (N, K), (N,) -> (N,).

    It increases with the cross-entropy, so its gradient has the same direction; but where the softmax saturates
    and the cross-entropy's gradient underflows to exactly zero in float32, this one does not. Confident nets with
    small gradients therefore are not mistaken for robust ones.
    """
    return torch.logsumexp(others(logits, labels), dim=1) - picked(logits, labels)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """max_{j != y} z_j - z_y, per example (Carlini and Wagner 2017); positive exactly when misclassified."""
    return others(logits, labels).amax(1) - picked(logits, labels)


def advantage(logits: Tensor, labels: Tensor) -> Tensor:
    """z_y - max_{j != y} z_j, per example: 0 or less is broken; minus infinity where a logit is NaN or infinite."""
    return torch.where(logits.isfinite().all(1), -margin(logits, labels), -torch.inf)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio (Croce and Hein 2020, section 4.2): the margin over the spread of the top logits.

    The spread is z_(1) - z_(3); with two classes it would be the margin itself, and is left out.
    """
    if logits.shape[1] < 3:
        return margin(logits, labels)
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / _spread(top[:, 0] - top[:, 2])


def targeted_margin(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """z_t - z_y, per example, for target classes t; (N, K), (N,), (N,) -> (N,)."""
    return picked(logits, targets) - picked(logits, labels)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The targeted DLR (Croce and Hein 2020, section 4.2): z_t - z_y over the spread of the top logits; (N,).

    The spread z_(1) - (z_(3) + z_(4)) / 2 becomes z_(1) - (z_(2) + z_(3)) / 2 with three classes (z_(1) - z_(3) would
    leave the loss towards the last class at -1, without a gradient), and is left out with two.
    """
    gained = targeted_margin(logits, labels, targets)
    if logits.shape[1] < 3:
        return gained
    top = logits.topk(min(4, logits.shape[1]), dim=1).values
    return gained / _spread(top[:, 0] - top[:, min(2, logits.shape[1] - 2) :].mean(1))


def _spread(difference: Tensor) -> Tensor:
    """The difference, 1 where it is 0: any constant added to it would say how small logits may be."""
    return torch.where(difference == 0, 1.0, difference)


def softmax_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The textbook cross-entropy, per example; its gradient is exactly zero where the softmax saturates in float32.

    For measuring what published evaluations with it would have seen, not for attacking.
    """
    return F.cross_entropy(logits, labels, reduction="none")


LOSS_FUNCTIONS: dict[LossName, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": cross_entropy,
    "margin": margin,
    "dlr": dlr,
    "softmax_cross_entropy": softmax_cross_entropy,
}
