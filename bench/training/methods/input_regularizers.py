"""Baselines that penalise derivatives with respect to the input: Jacobian, input gradient, Hessian."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.attributions.gradients import true_logit_gradient
from bench.training.methods.base import Batch, GradientMethod

if TYPE_CHECKING:
    from bench.training.recipe import Schedule

_SMALLEST_NORM = 1e-6


class JacobianRegularization(GradientMethod):
    """CE + weight / 2 * E_v (K * ||v^T J||^2), v uniform on the unit sphere of logits (IR, section 3).

    An unbiased estimate of weight / 2 * ||J||_F^2, averaged over the examples, J being the Jacobian of the K logits.
    Source: Hoffman, Roberts, Yaida, "Robust learning with Jacobian regularization", 2019, algorithm 1; the default
    weight is that of their package's example, the IR code's is not known.
    """

    weight: float = Field(default=0.01, gt=0, description="weight of half the squared Frobenius norm")
    projections: int = Field(default=1, gt=0, le=100_000, description="random projections a step")

    def loss_terms(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        images, logits, penalised = self.logits_twice(model, batch)
        total = torch.zeros((), device=images.device, dtype=images.dtype)
        for _ in range(self.projections):
            direction = torch.randn(logits.shape, generator=batch.generator).to(logits)
            direction = direction / direction.norm(dim=1, keepdim=True)
            (product,) = torch.autograd.grad((penalised * direction).sum(), images, create_graph=True)
            total = total + logits.shape[1] * product.flatten(1).square().sum(1).mean() / self.projections
        return {"cross_entropy": F.cross_entropy(logits, batch.labels), "jacobian": 0.5 * self.weight * total}


class InputGradientRegularization(GradientMethod):
    """CE + weight * RMS_i ||d CE_i / dx_i||: double back-propagation (Drucker and LeCun 1992; IR, section 1).

    The root mean square over the minibatch, so that the weight does not depend on the batch size (the IR code takes one
    un-averaged norm of the gradient of the mean loss). The default weight is ours; the IR code's is not known.
    """

    weight: float = Field(default=0.5, gt=0, description="weight of the gradient's norm")

    def loss_terms(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        images, logits, penalised = self.logits_twice(model, batch)
        losses = F.cross_entropy(penalised, batch.labels, reduction="none")
        (gradient,) = torch.autograd.grad(losses.sum(), images, create_graph=True)
        squares = gradient.flatten(1).square().sum(1).mean()
        return {
            "cross_entropy": F.cross_entropy(logits, batch.labels),
            "input_gradient": self.weight * torch.sqrt(squares + _SMALLEST_NORM**2),
        }


class HessianRegularization(GradientMethod):
    """CE + weight * mean_i ||H_i v_i||^2, v ~ N(0, I), one draw a step (LGA, section 2).

    An unbiased estimate of the squared Frobenius norm of the Hessian of the true class's logit in normalised pixel
    space. Zero for ReLU nets: needs softplus. Source: Dombrowski et al., "Towards robust explanations for deep neural
    networks", Pattern Recognition 2022; the default weight is that of the LGA code for LeNet on CIFAR-10.
    """

    weight: float = Field(default=1e-3, gt=0, description="weight of the squared Frobenius norm")

    def contradiction(self, schedule: Schedule) -> str | None:
        if schedule.activation != "relu":
            return None
        return "the Hessian of a relu net is 0 everywhere, so there is nothing to penalise; use activation=softplus"

    def loss_terms(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        inputs, logits, penalised = self.logits_twice(model, batch)
        gradient = true_logit_gradient(penalised, inputs, batch.labels, differentiable=True)
        noise = torch.randn(inputs.shape, generator=batch.generator).to(inputs)
        # in normalised space a pixel is x / std: both the direction and the result take one factor std
        (product,) = torch.autograd.grad((gradient * noise * batch.pixel_std).sum(), inputs, create_graph=True)
        squares = (product * batch.pixel_std).flatten(1).square().sum(1).mean()
        return {"cross_entropy": F.cross_entropy(logits, batch.labels), "hessian": self.weight * squares}
