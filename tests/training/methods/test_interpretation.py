from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from bench.attributions.gradients import gradient_maps, smoothgrad_maps
from bench.training.methods import Batch, InterpretationRegularization
from tests.training.methods.nets import batch, net


def test_the_cosine_term_is_zero_on_target_and_one_when_orthogonal() -> None:
    model, data = net(), batch()
    own = gradient_maps(model, data.images, data.labels)
    method = InterpretationRegularization(target="gradient", cosine_weight=1.0, magnitude_weight=0.0, threshold=0.0)
    on_target = method.loss_terms(model, batch(maps=3 * own))["cosine"]
    assert float(on_target) == pytest.approx(0.0, abs=1e-3)
    other = torch.randn_like(own)
    flat, along = other.flatten(1), own.flatten(1)
    flat = flat - along * ((flat * along).sum(1) / along.square().sum(1))[:, None]
    orthogonal = method.loss_terms(model, batch(maps=flat.view_as(own)))["cosine"]
    assert float(orthogonal) == pytest.approx(1.0, abs=1e-3)


def test_the_magnitude_term_does_not_depend_on_the_batch_size_unless_asked() -> None:
    model, data = net(), batch()
    twice = Batch(data.images.repeat(2, 1, 1, 1), data.labels.repeat(2), None, data.pixel_std, generator=data.generator)
    per_example = InterpretationRegularization(target="gradient", cosine_weight=0.0, magnitude_weight=1.0)
    minibatch = per_example.model_copy(update={"magnitude_norm": "minibatch"})
    one, two = (float(per_example.loss_terms(model, which)["magnitude"]) for which in (data, twice))
    assert two == pytest.approx(one, rel=1e-5)
    one, two = (float(minibatch.loss_terms(model, which)["magnitude"]) for which in (data, twice))
    assert two == pytest.approx(one * 2**0.5, rel=1e-5)
    norms = gradient_maps(model, data.images, data.labels).flatten(1).norm(dim=1)
    assert one == pytest.approx(float(norms.square().sum().sqrt()), rel=1e-4)


def test_input_gradients_are_those_of_the_true_logit() -> None:
    model, data = net(), batch()
    gradient = gradient_maps(model, data.images, data.labels)
    single = data.images[2:3].clone().requires_grad_(True)
    (expected,) = torch.autograd.grad(model(single)[0, data.labels[2]], single)
    assert torch.allclose(gradient[2:3], expected, atol=1e-6)


def test_smoothgrad_is_the_gradient_without_noise_and_settles_with_many_samples() -> None:
    model, data = net(), batch()
    exact = gradient_maps(model, data.images, data.labels)
    still = smoothgrad_maps(
        model, data.images, data.labels, samples=3, sigma=0.0, generator=torch.Generator().manual_seed(0)
    )
    assert torch.allclose(still, exact, atol=1e-6)
    noisy = smoothgrad_maps(
        model, data.images, data.labels, samples=400, sigma=0.1, generator=torch.Generator().manual_seed(0)
    )
    other = smoothgrad_maps(
        model, data.images, data.labels, samples=400, sigma=0.1, generator=torch.Generator().manual_seed(1)
    )
    assert float(F.cosine_similarity(noisy.flatten(1), other.flatten(1)).min()) > 0.99
