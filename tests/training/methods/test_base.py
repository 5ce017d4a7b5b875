from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from bench.training.methods import InterpretationRegularization, LocalGradientAlignment, Method, Trades
from bench.training.methods.interpretation import cosine
from tests.training.methods.nets import METHODS, batch, batch_norm_net, net, parameter_gradients


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


@pytest.mark.parametrize("lengths", [(1.0, 1e-10), (1e-10, 1.0), (1e-10, 1e-10), (1e-6, 1e-6), (1.0, 1.0)])
def test_the_derivatives_of_the_cosine_are_bounded_as_is_said(lengths: tuple[float, float]) -> None:
    generator = torch.Generator().manual_seed(0)
    pair = [torch.randn(50, 100, generator=generator, dtype=torch.float64) for _ in lengths]
    first, second = (
        (length * F.normalize(one)).requires_grad_(True) for length, one in zip(lengths, pair, strict=True)
    )
    slopes = [float(one.norm(dim=1).max()) for one in torch.autograd.grad(cosine(first, second).sum(), (first, second))]
    for slope, bound in zip(slopes, (min(1 / lengths[0], 1e12 * lengths[1]), min(1 / lengths[1], 1e6)), strict=True):
        assert 0 < slope <= bound * (1 + 1e-9)
    if lengths == (1e-10, 1.0):
        assert slopes[0] > 1e9 and slopes[1] < 1


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


def test_dropout_leaves_out_the_same_units_of_the_cross_entropy_and_of_the_penalty() -> None:
    """As in the one pass of IR's code, and of a net without batch norm."""
    model, seen = batch_norm_net(), []
    model.insert(3, nn.Dropout(0.5))
    model[3].register_forward_hook(lambda _, given, found: seen.append(found == 0))
    method = InterpretationRegularization(target="gradient")
    torch.manual_seed(0)
    method.loss_terms(model, batch(maps=torch.randn(6, 1, 8, 8)))
    following = torch.rand(3)
    assert len(seen) == 2 and torch.equal(*seen) and 0.4 < float(seen[0].float().mean()) < 0.6
    torch.manual_seed(0)
    torch.randn(6, 1, 8, 8)
    model(batch().images)
    assert len(seen) == 3 and torch.equal(seen[0], seen[2]) and torch.equal(following, torch.rand(3))
