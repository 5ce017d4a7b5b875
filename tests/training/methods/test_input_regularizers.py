from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.training.methods import HessianRegularization, InputGradientRegularization, JacobianRegularization
from tests.training.methods.nets import batch, net


def exact_jacobians(model: nn.Module, images: Tensor) -> Tensor:
    """(N, K, D) by torch.func, one image at a time."""
    jacobian = torch.func.jacrev(lambda image: model(image[None])[0])
    return torch.stack([jacobian(image).flatten(1) for image in images])


def test_the_jacobian_estimate_is_unbiased() -> None:
    model, data = net(), batch()
    exact = exact_jacobians(model, data.images).square().sum((1, 2)).mean()
    estimate = JacobianRegularization(weight=2.0, projections=3000).loss_terms(model, data)["jacobian"]
    assert float(estimate) == pytest.approx(float(exact), rel=0.05)


def test_the_hessian_estimate_is_unbiased_in_normalised_space_and_zero_for_relu() -> None:
    model, data = net(), batch()
    total = 0.0
    for image, label in zip(data.images, data.labels, strict=True):
        hessian = torch.func.hessian(lambda x, label=label: model(x.view(1, 1, 8, 8))[0, label])(image.flatten())
        total += float((hessian * 0.4**2).square().sum()) / len(data.images)
    method = HessianRegularization(weight=1.0)
    draws = [float(method.loss_terms(model, data)["hessian"].detach()) for _ in range(800)]
    assert sum(draws) / len(draws) == pytest.approx(total, rel=0.1)
    assert float(method.loss_terms(net("relu"), data)["hessian"]) == 0.0


def test_the_input_gradient_term_is_the_root_mean_square_norm_of_the_losses_gradients() -> None:
    model, data = net(), batch()
    norms = []
    for image, label in zip(data.images, data.labels, strict=True):
        single = image[None].clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(single), label[None]), single)
        norms.append(float(gradient.norm()))
    expected = (sum(norm**2 for norm in norms) / len(norms)) ** 0.5
    term = InputGradientRegularization(weight=1.0).loss_terms(model, data)["input_gradient"]
    assert float(term) == pytest.approx(expected, rel=1e-4)
