from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from bench.attributions.gradients import gradient_maps, input_gradient, smoothgrad_maps
from bench.nets import build_net
from bench.training.methods import (
    Adversarial,
    Batch,
    HessianRegularization,
    InputGradientRegularization,
    InterpretationRegularization,
    JacobianRegularization,
    LocalGradientAlignment,
    Method,
    Standard,
    Trades,
)
from bench.training.methods.interpretation import cosine


def net(activation: str = "softplus", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_net(
        "small_cnn",
        {"in_channels": 1, "image_size": 8, "num_classes": 4, "mean": [0.3], "std": [0.4], "widths": [4, 6], "hidden": 8,
         "activation": activation},
    )  # fmt: skip


def batch(seed: int = 1, maps: Tensor | None = None, dtype: torch.dtype = torch.float32) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(6, 1, 8, 8, generator=generator).to(dtype)
    labels = torch.randint(4, (6,), generator=generator)
    return Batch(images, labels, maps, torch.full((1, 1, 1, 1), 0.4, dtype=dtype), torch.Generator().manual_seed(seed))


def parameter_gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


METHODS: list[Method] = [
    Standard(),
    InterpretationRegularization(target="gradient", cosine_weight=1.0, magnitude_weight=0.5),
    LocalGradientAlignment(l2_weight=0.1, cosine_weight=1.0),
    JacobianRegularization(weight=0.1, projections=2),
    InputGradientRegularization(weight=0.5),
    HessianRegularization(weight=0.1),
]


@pytest.mark.parametrize("method", [*METHODS, Trades(eps=0.1)], ids=lambda method: type(method).__name__)
def test_the_first_term_is_plain_cross_entropy_with_its_gradient(method: Method) -> None:
    model, data = net(), batch(maps=torch.randn(6, 1, 8, 8))
    first = next(iter(method.loss_terms(model, data).values()))
    plain = F.cross_entropy(model(data.images), data.labels)
    assert torch.allclose(first, plain)
    for ours, theirs in zip(parameter_gradients(model, first), parameter_gradients(model, plain), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


WEIGHTS = ("weight", "cosine_weight", "magnitude_weight", "l2_weight", "beta")


@pytest.mark.parametrize("method", [*METHODS, Trades(eps=0.1)], ids=lambda method: type(method).__name__)
def test_with_weights_of_zero_training_is_plain_cross_entropy(method: Method) -> None:
    """The range checks are passed by, so that the code of the loss itself is what is tested."""
    off = method.model_copy(update={name: 0.0 for name in WEIGHTS if name in type(method).model_fields})
    model, data = net(), batch(maps=torch.randn(6, 1, 8, 8))
    total = torch.stack(list(off.loss_terms(model, data).values())).sum()
    plain = F.cross_entropy(model(data.images), data.labels)
    for ours, theirs in zip(parameter_gradients(model, total), parameter_gradients(model, plain), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("method", METHODS[1:], ids=lambda method: type(method).__name__)
def test_a_regularisers_gradient_in_float64_is_the_numerical_one(method: Method) -> None:
    model = net().double()
    data = batch(maps=torch.randn(6, 1, 8, 8, dtype=torch.float64), dtype=torch.float64)
    weight = model.get_parameter("conv1.weight")

    def loss() -> Tensor:
        data.generator.manual_seed(7)
        return sum(method.loss_terms(model, data).values(), torch.zeros((), dtype=torch.float64))

    (analytic,) = torch.autograd.grad(loss(), weight)
    position, step = (1, 0, 2, 3), 1e-5
    moved = []
    for change in (step, -2 * step):
        with torch.no_grad():
            weight[position] += change
        moved.append(float(loss().detach()))
    with torch.no_grad():
        weight[position] += step
    above, below = moved
    numerical = (above - below) / (2 * step)
    if isinstance(method, LocalGradientAlignment):  # the reference is a constant target: compare without detaching
        undetached = method.model_copy(update={"detach_reference": False})
        data.generator.manual_seed(7)
        (analytic,) = torch.autograd.grad(sum(undetached.loss_terms(model, data).values()), weight)
    assert float(analytic[position]) == pytest.approx(numerical, rel=1e-4)


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
    twice = Batch(data.images.repeat(2, 1, 1, 1), data.labels.repeat(2), None, data.pixel_std, data.generator)
    per_example = InterpretationRegularization(target="gradient", cosine_weight=0.0, magnitude_weight=1.0)
    minibatch = per_example.model_copy(update={"magnitude_norm": "minibatch"})
    one, two = (float(per_example.loss_terms(model, which)["magnitude"]) for which in (data, twice))
    assert two == pytest.approx(one, rel=1e-5)
    one, two = (float(minibatch.loss_terms(model, which)["magnitude"]) for which in (data, twice))
    assert two == pytest.approx(one * 2**0.5, rel=1e-5)
    norms = gradient_maps(model, data.images, data.labels).flatten(1).norm(dim=1)
    assert one == pytest.approx(float(norms.square().sum().sqrt()), rel=1e-4)


def test_scaling_the_last_layer_scales_the_l2_term_by_its_square_and_leaves_the_cosine_term() -> None:
    """LGA, section 1.5: the l2 criterion is not normalisation invariant, the cosine criterion is."""
    model, method = net(), LocalGradientAlignment(l2_weight=1.0, cosine_weight=1.0, eps=0.05)
    before = method.loss_terms(model, batch())
    with torch.no_grad():
        for parameter in (model.get_parameter("linear2.weight"), model.get_parameter("linear2.bias")):
            parameter.mul_(0.1)
    after = method.loss_terms(model, batch())
    assert float(after["l2"] / before["l2"]) == pytest.approx(0.01, rel=1e-3)
    assert float(after["cosine"]) == pytest.approx(float(before["cosine"]), rel=2e-2, abs=1e-6)


def test_alignment_is_measured_in_normalised_space() -> None:
    method = LocalGradientAlignment(l2_weight=1.0, cosine_weight=0.0)
    data = batch()
    doubled = Batch(data.images, data.labels, None, 2 * data.pixel_std, torch.Generator().manual_seed(1))
    model = net()
    assert float(method.loss_terms(model, doubled)["l2"] / method.loss_terms(model, data)["l2"]) == pytest.approx(
        4.0, rel=1e-4
    )


def test_zero_gradients_give_finite_losses_and_steps() -> None:
    model = net()
    with torch.no_grad():
        model.get_parameter("linear2.weight").zero_()
    for method in METHODS[1:]:
        loss = sum(method.loss_terms(model, batch(maps=torch.randn(6, 1, 8, 8))).values())
        assert torch.isfinite(loss)
        for gradient in parameter_gradients(model, loss):
            assert torch.isfinite(gradient).all()
            assert float(gradient.abs().max()) < 1e7
    assert torch.equal(cosine(torch.zeros(2, 4), torch.ones(2, 4)), torch.zeros(2))


def test_adversarial_training_sees_harder_images_than_clean_ones() -> None:
    model, data = net("relu"), batch()
    method = Adversarial(norm="linf", eps=0.2, steps=5)
    assert float(method.loss_terms(model, data)["adversarial_cross_entropy"]) > float(
        F.cross_entropy(model(data.images), data.labels)
    )
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("method", [InterpretationRegularization, LocalGradientAlignment])
def test_two_weights_of_zero_are_refused(method: type[Method]) -> None:
    weights = (
        {"cosine_weight": 0.0, "magnitude_weight": 0.0}
        if method is InterpretationRegularization
        else {"cosine_weight": 0.0, "l2_weight": 0.0}
    )
    target = {"target": "gradient"} if method is InterpretationRegularization else {}
    with pytest.raises(ValidationError, match="both weights are 0"):
        method(**target, **weights)


def test_input_gradients_are_those_of_the_true_logit() -> None:
    model, data = net(), batch()
    _, gradient = input_gradient(model, data.images, data.labels)
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


def test_trades_raises_the_divergence_inside_the_ball() -> None:
    model, data = net("relu"), batch()
    method = Trades(eps=0.2, beta=1.0)
    adversarial = method._attack(model, data)
    assert float((adversarial - data.images).abs().max()) <= 0.2 + 1e-6
    assert float(adversarial.min()) >= 0.0 and float(adversarial.max()) <= 1.0
    gentle = Trades(eps=1e-4, beta=1.0).loss_terms(model, data)["divergence"]
    assert float(method.loss_terms(model, data)["divergence"]) > 10 * float(gentle)


def batch_norm_net() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 36, 4)]
    model = nn.Sequential(*layers)
    for _ in range(3):  # running statistics that differ from a batch's
        model(2.0 * torch.rand(6, 1, 8, 8))
    return model


@pytest.mark.parametrize("method", METHODS[1:], ids=lambda method: type(method).__name__)
def test_batch_norm_is_kept_out_of_the_penalised_derivatives_unless_asked(method: Method) -> None:
    """Frozen: an example's penalty does not depend on the others, and statistics move by one pass alone."""

    def outcome(mode: str) -> tuple[Tensor, Tensor]:
        model, data = batch_norm_net(), batch(maps=torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(3)))
        terms = method.model_copy(update={"batch_norm": mode}).loss_terms(model, data)
        assert model[1].training
        return torch.stack(list(terms.values())[1:]).detach(), model[1].running_mean.clone()

    frozen, statistics = outcome("frozen")
    followed, moved = outcome("batch")
    assert not torch.allclose(frozen, followed, rtol=1e-3)
    once = batch_norm_net()
    once(batch().images)
    assert torch.allclose(statistics, once[1].running_mean)
    if isinstance(method, LocalGradientAlignment):
        assert not torch.allclose(moved, once[1].running_mean)  # the noisy pass moved them too


@pytest.mark.parametrize("kind", ["uniform", "gaussian", "gradient", "gradient_sign"])
def test_alignments_perturbation_is_of_the_kind_asked_for(kind: str) -> None:
    model, data = net(), batch()
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    LocalGradientAlignment(eps=0.1, perturbation=kind).loss_terms(model, data)
    delta = ((seen[1] - seen[0]) / 0.1).flatten(1)
    norms = delta.norm(dim=1)
    if kind == "uniform":
        assert 0.9 < float(delta.abs().max()) <= 1.0 + 1e-5
    elif kind == "gaussian":
        assert float(delta.std()) == pytest.approx(1.0, abs=0.15) and float(delta.abs().max()) > 1.5
    else:
        assert torch.allclose(norms, torch.ones(6), atol=1e-4)
        own = gradient_maps(model, data.images, data.labels).flatten(1)
        own = own.sign() if kind == "gradient_sign" else own
        assert torch.allclose(F.cosine_similarity(delta, own), torch.ones(6), atol=1e-4)


def test_the_net_is_attacked_in_the_mode_asked_for() -> None:
    for mode, unmoved in (("eval", True), ("train", False)):
        model, data = batch_norm_net(), batch()
        once = batch_norm_net()
        adversarial = Adversarial(norm="linf", eps=0.1, steps=2, attack_mode=mode)
        adversarial.loss_terms(model, data)
        once(data.images)
        assert int(model[1].num_batches_tracked) == int(once[1].num_batches_tracked) + (0 if unmoved else 2)


def test_the_radius_of_adversarial_training_grows_with_the_share_of_training_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bench.training.methods import adversarial

    met: list[float] = []

    def remembers(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, **settings: Any) -> torch.Tensor:
        met.append(settings["eps"])
        return images

    monkeypatch.setattr(adversarial, "pgd", remembers)
    data = batch()
    method = Adversarial(norm="linf", eps=0.3, eps_warmup_share=0.5)
    for done in (0.0, 0.25, 0.5, 0.9):
        method.loss_terms(net(), dataclasses.replace(data, progress=done))
    Adversarial(norm="linf", eps=0.3).loss_terms(net(), dataclasses.replace(data, progress=0.0))
    assert met == pytest.approx([0.0, 0.15, 0.3, 0.3, 0.3])
