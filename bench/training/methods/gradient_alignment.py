"""Local gradient alignment (LGA): the input gradient of a perturbed image stays that of the image."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from bench.attributions.gradients import true_logit_gradient
from bench.core.bounds import require_radius
from bench.training.methods.base import Batch, GradientMethod
from bench.training.methods.interpretation import cosine

_SMALLEST_NORM = 1e-8


class LocalGradientAlignment(GradientMethod):
    """CE + l2_weight * |h(x) - h(x')|^2 + cosine_weight * (1 - cos(h(x), h(x'))) / 2 (LGA, section 1).

    h is the gradient of the true class's logit in normalised pixel space, x' = x + eps * u, not clipped. u is uniform
    in [-1, 1] by default; or standard normal; or h(x), or its sign, scaled to L2 norm 1 (LGA, section 1.1). The
    reference h(x) is a constant target, as in the paper's code, unless `detach_reference` is off. For softplus nets.

    With a constant target the step is no descent on the criterion: what moves h(x) and h(x') alike moves both by
    h(x) - h(x'), which sharpens h. Large weights then make training diverge; with `detach_reference` off they do not,
    at about 1.2 times the time a step (benchmarks/recipe_cost.py); where h(x) vanishes and h(x') does not, the cosine
    term's derivative by h(x) then goes with 1 / |h(x)|, and `gradient_clip` alone bounds the step. Weights and eps are
    by default those of the paper's code for LeNet on CIFAR-10.
    """

    eps: float = Field(default=4 / 255, gt=0, description="size of the perturbation, pixels in [0, 1]")
    perturbation: Literal["uniform", "gaussian", "gradient", "gradient_sign"] = Field(
        default="uniform", description="kind of perturbation"
    )
    l2_weight: float = Field(default=0.01, ge=0, description="weight of the squared distance")
    cosine_weight: float = Field(default=1.0, ge=0, description="weight of the cosine distance")
    detach_reference: bool = Field(default=True, description="train through the perturbed gradient only")

    @model_validator(mode="after")
    def _regularises(self) -> LocalGradientAlignment:
        if self.l2_weight == 0 and self.cosine_weight == 0:
            raise ValueError("both weights are 0; use the recipe standard for plain cross-entropy")
        require_radius(self.eps, "l2" if self.perturbation in ("gradient", "gradient_sign") else "linf")
        return self

    def loss_terms(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        inputs, logits, penalised = self.logits_twice(model, batch)
        reference = true_logit_gradient(penalised, inputs, batch.labels, differentiable=not self.detach_reference)
        noisy = (batch.images + self.eps * self._direction(batch, reference)).detach().requires_grad_(True)
        noisy_logits = self.penalised_pass(model, noisy)
        gradient = true_logit_gradient(noisy_logits, noisy, batch.labels, differentiable=True)
        reference, gradient = reference * batch.pixel_std, gradient * batch.pixel_std
        if self.detach_reference:
            reference = reference.detach()
        terms = {"cross_entropy": F.cross_entropy(logits, batch.labels)}
        if self.l2_weight > 0:
            terms["l2"] = self.l2_weight * (reference - gradient).flatten(1).square().sum(1).mean()
        if self.cosine_weight > 0:
            terms["cosine"] = self.cosine_weight * 0.5 * (1.0 - cosine(reference, gradient)).mean()
        return terms

    def _direction(self, batch: Batch, reference: Tensor) -> Tensor:
        if self.perturbation == "uniform":
            return 2.0 * batch.uniform() - 1.0
        if self.perturbation == "gaussian":
            return torch.randn(batch.images.shape, generator=batch.generator).to(batch.images.device)
        normalised = reference.detach() * batch.pixel_std
        direction = normalised.sign() if self.perturbation == "gradient_sign" else normalised
        norms = torch.linalg.vector_norm(direction.flatten(1), dim=1).view(-1, 1, 1, 1)
        scaled: Tensor = direction / (norms + _SMALLEST_NORM)
        return scaled
