"""PGD adversarial training (Madry et al. 2018): every image is replaced by an adversarial one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.attacks.losses import LossName
from bench.attacks.pgd import pgd
from bench.core.bounds import RadiusOfNorm
from bench.core.threat import Norm
from bench.training.methods.base import Batch, Method


class Adversarial(Method):
    """Cross-entropy on PGD examples only, no clean images mixed in.

    The net is in eval mode while it is attacked, unless `attack_mode` is train as in the IR code, where the attack's
    passes move batch norm's statistics; true labels; the gradient does not flow through the attack (Bridging
    section 0).

    With `eps_warmup_share` the radius grows linearly from 0 over that share of training: from a random start, a net
    that meets L-inf 0.3 on MNIST at once stays at the constant prediction.
    """

    norm: Norm = Field(description="norm of the ball")
    eps: RadiusOfNorm = Field(description="radius, pixels in [0, 1]")
    steps: int = Field(default=7, gt=0, le=100_000, description="PGD steps")
    relative_step_size: float = Field(default=2.5, gt=0, description="step size times steps, over eps")
    attack_loss: LossName = Field(default="cross_entropy", description="loss the attack maximises")
    random_start: bool = Field(default=True, description="start at a random point of the ball")
    eps_warmup_share: float = Field(
        default=0.0, ge=0, le=1, description="share of training in which the radius grows from 0 to eps"
    )
    attack_mode: Literal["eval", "train"] = Field(default="eval", description="mode of the net under attack")

    def loss_terms(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        eps = self.eps * min(1.0, batch.progress / self.eps_warmup_share) if self.eps_warmup_share > 0 else self.eps
        adversarial = pgd(
            model,
            batch.images,
            batch.labels,
            norm=self.norm,
            eps=eps,
            steps=self.steps,
            step_size=self.relative_step_size * eps / self.steps,
            loss=self.attack_loss,
            start=batch.uniform() if self.random_start else None,
            train_mode=self.attack_mode == "train",
        )
        return {"adversarial_cross_entropy": F.cross_entropy(model(adversarial), batch.labels)}
