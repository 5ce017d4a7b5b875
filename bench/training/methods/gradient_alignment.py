"""Local gradient alignment (LGA): the input gradient of a perturbed image stays that of the image."""

from __future__ import annotations

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from bench.attribution.gradients import input_gradient
from bench.training.methods.base import Batch, Method
from bench.training.methods.interpretation import cosine


class LocalGradientAlignment(Method):
    """CE + l2_weight * |h(x) - h(x')|^2 + cosine_weight * (1 - cos(h(x), h(x'))) / 2 (LGA, section 1).

    h is the gradient of the true class's logit in normalised pixel space, x' = x + uniform noise of radius eps, not
    clipped. The reference h(x) is a constant target unless `detach_reference` is off. Needs a softplus net.
    """

    eps: float = Field(default=4 / 255, gt=0, description="radius of the uniform noise, pixels in [0, 1]")
    l2_weight: float = Field(default=0.01, ge=0, description="weight of the squared distance")
    cosine_weight: float = Field(default=1.0, ge=0, description="weight of the cosine distance")
    detach_reference: bool = Field(default=True, description="train through the perturbed gradient only")

    @model_validator(mode="after")
    def _regularises(self) -> LocalGradientAlignment:
        if self.l2_weight == 0 and self.cosine_weight == 0:
            raise ValueError("both weights are 0; use the recipe standard for plain cross-entropy")
        return self

    def loss_terms(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits, reference = input_gradient(model, batch.images, batch.labels, differentiable=not self.detach_reference)
        noisy = batch.images + self.eps * (2.0 * batch.uniform() - 1.0)
        _, gradient = input_gradient(model, noisy, batch.labels, differentiable=True)
        reference, gradient = reference * batch.pixel_std, gradient * batch.pixel_std
        if self.detach_reference:
            reference = reference.detach()
        terms = {"cross_entropy": F.cross_entropy(logits, batch.labels)}
        if self.l2_weight > 0:
            terms["l2"] = self.l2_weight * (reference - gradient).flatten(1).square().sum(1).mean()
        if self.cosine_weight > 0:
            terms["cosine"] = self.cosine_weight * 0.5 * (1.0 - cosine(reference, gradient)).mean()
        return terms
