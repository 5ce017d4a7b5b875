"""TRADES (Zhang et al. 2019): cross-entropy on clean images, and a smooth decision around them."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.attacks.pgd import attacked_model
from bench.attacks.projections import project
from bench.attacks.steps import steepest_step
from bench.core.bounds import RadiusOfNorm
from bench.core.threat import Norm
from bench.training.methods.base import Batch, Method

_START = 1e-3


class Trades(Method):
    """CE(x) + beta * KL(p(x) || p(x')), x' in the ball chosen by PGD to maximise the divergence.

    The attack starts at the image plus Gaussian noise of standard deviation 0.001, as in the authors' code; the net is
    in eval mode while it is attacked, and the divergence is averaged over the examples.
    Source: "Theoretically principled trade-off between robustness and accuracy", ICML 2019, equation 5.
    """

    norm: Norm = Field(default="linf", description="norm of the ball")
    eps: RadiusOfNorm = Field(description="radius, pixels in [0, 1]")
    beta: float = Field(default=6.0, gt=0, description="weight of the divergence, 1/lambda in the paper")
    steps: int = Field(default=7, gt=0, le=100_000, description="PGD steps")
    relative_step_size: float = Field(default=2.5, gt=0, description="step size times steps, over eps")

    def loss_terms(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        adversarial = self._attack(model, batch)
        logits = model(batch.images)
        divergence = _divergence(model(adversarial), logits).mean()
        return {"cross_entropy": F.cross_entropy(logits, batch.labels), "divergence": self.beta * divergence}

    def _attack(self, model: nn.Module, batch: Batch) -> Tensor:
        images = batch.images
        radius = images.new_full((len(images),), self.eps)
        size = radius * (self.relative_step_size / self.steps)
        sparsity = images.new_full((len(images),), 0.05)
        noise = torch.randn(images.shape, generator=batch.generator).to(images.device)
        adversarial = project(images + _START * noise, images, radius, self.norm)
        with attacked_model(model):
            with torch.no_grad():
                clean = model(images)
            for _ in range(self.steps):
                adversarial = adversarial.detach().requires_grad_(True)
                (gradient,) = torch.autograd.grad(_divergence(model(adversarial), clean).sum(), adversarial)
                with torch.no_grad():
                    step = steepest_step(gradient, adversarial, size, self.norm, sparsity=sparsity)
                    adversarial = project(adversarial + step, images, radius, self.norm)
        return adversarial.detach()


def _divergence(logits: Tensor, reference: Tensor) -> Tensor:
    """KL(softmax(reference) || softmax(logits)) per example; (N, K), (N, K) -> (N,)."""
    return F.kl_div(logits.log_softmax(1), reference.log_softmax(1), reduction="none", log_target=True).sum(1)
