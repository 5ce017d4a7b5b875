"""Quick checks while training: clean accuracy and a short PGD on held-out examples."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.attacks.pgd import attacked_model, pgd
from bench.core.threat import ThreatModel

QUICK_THREATS: dict[str, tuple[ThreatModel, ...]] = {
    "fashion_mnist": (ThreatModel("linf", 0.1), ThreatModel("l2", 1.5)),
    "mnist": (ThreatModel("linf", 0.3), ThreatModel("l2", 1.5)),
    "cifar10": (ThreatModel("linf", 8 / 255), ThreatModel("l2", 0.5)),
}


def accuracy(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 512) -> float:
    """The share of images classified right, in eval mode; the model's modes are put back."""
    correct = torch.zeros((), dtype=torch.int64, device=images.device)
    with attacked_model(model), torch.no_grad():
        for begin in range(0, len(images), batch_size):
            batch = slice(begin, begin + batch_size)
            correct += (model(images[batch]).argmax(1) == labels[batch]).sum()
    return int(correct) / len(images)


def quick_robust_accuracy(
    model: nn.Module, images: Tensor, labels: Tensor, threat: ThreatModel, steps: int = 10
) -> float:
    """Accuracy under a `steps`-step PGD without restarts: a trend to watch, not a verdict."""
    adversarial = pgd(
        model, images, labels, norm=threat.norm, eps=threat.eps, steps=steps, step_size=2.5 * threat.eps / steps
    )
    return accuracy(model, adversarial, labels)
