"""PGD adversarial training (Madry et al. 2018): every image is replaced by an adversarial one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.attacks.losses import LossName
from bench.attacks.pgd import pgd
from bench.core.threat import Norm
from bench.training.methods.base import Batch, Method


class Adversarial(Method):
    """Cross-entropy on PGD examples only, no clean images mixed in.

    The net is in eval mode while it is attacked, unless `attack_mode` is train as in the IR code, where the attack's
    passes move batch norm's statistics; true labels; the gradient does not flow through the attack (Bridging
    section 0).
    """

    norm: Norm = Field(description="norm of the ball")
    eps: float = Field(gt=0, description="radius, pixels in [0, 1]")
    steps: int = Field(default=7, gt=0, description="PGD steps")
    relative_step_size: float = Field(default=2.5, gt=0, description="step size times steps, over eps")
    attack_loss: LossName = Field(default="cross_entropy", description="loss the attack maximises")
    random_start: bool = Field(default=True, description="start at a random point of the ball")
    attack_mode: Literal["eval", "train"] = Field(default="eval", description="mode of the net under attack")

    def loss_terms(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        adversarial = pgd(
            model,
            batch.images,
            batch.labels,
            norm=self.norm,
            eps=self.eps,
            steps=self.steps,
            step_size=self.relative_step_size * self.eps / self.steps,
            loss=self.attack_loss,
            start=batch.uniform() if self.random_start else None,
            train_mode=self.attack_mode == "train",
        )
        return {"adversarial_cross_entropy": F.cross_entropy(model(adversarial), batch.labels)}
