"""Methods that look into a net: the same maps however its operations are written, and a refusal where some are hidden."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.attributions.activations import SoftplusTwin, has_relu, smooth
from bench.attributions.registry import attribute, find_method
from bench.core.errors import BenchError
from bench.nets.adapter import PlainEval

LOOKING = ("guided_backprop", "deconvolution", "lrp_epsilon", "lrp_alpha2_beta1", "deeplift", "grad_cam")
Activation = Callable[[Tensor], Tensor]


def statement(values: Tensor) -> Tensor:
    F.relu_(values)
    return values


def on_a_view(values: Tensor) -> Tensor:
    F.relu_(values[:, :])
    return values


FORMS: dict[str, Activation] = {
    "module": nn.ReLU(inplace=True),
    "statement": statement,
    "view": on_a_view,
    "method": lambda values: values.relu_(),
    "clamp": lambda values: values.clamp(min=0),
    "clamp in place": lambda values: values.clamp_(0),
    "threshold": nn.Threshold(0.0, 0.0, inplace=True),
    "aten": lambda values: torch.ops.aten.relu_.default(values),
}


class Net(nn.Module):
    """Convolutions, a batch norm behind an activation, and a residual sum, in place or not."""

    def __init__(self, activation: Activation, *, in_place: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.linear = nn.BatchNorm2d(6), nn.Linear(6 * 16, 4)
        nn.init.normal_(self.norm.running_mean)
        self.activation, self.in_place = activation, in_place
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        start = self.norm(self.activation(self.first(images)))
        values = self.second(start)
        if self.in_place:
            values.add_(start, alpha=0.5)
        else:
            values = values + 0.5 * start
        return self.linear(F.avg_pool2d(self.activation(values), 2).flatten(1))


@pytest.fixture(scope="module")
def problem() -> tuple[Tensor, Tensor]:
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2])


def maps(net: nn.Module, problem: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    return {name: attribute(net, *problem, find_method(name)) for name in LOOKING}


@pytest.mark.parametrize("form", FORMS)
def test_nets_that_compute_the_same_have_the_same_maps(form: str, problem: tuple[Tensor, Tensor]) -> None:
    plain, other = Net(F.relu, in_place=False), Net(FORMS[form], in_place=True)
    torch.testing.assert_close(other(problem[0]), plain(problem[0]))
    torch.testing.assert_close(maps(other, problem), maps(plain, problem))
    with SoftplusTwin(5.0):
        torch.testing.assert_close(other(problem[0]), plain(problem[0]))
    assert has_relu(other, problem[0])


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        context.save_for_backward(values)
        return values * values.sigmoid()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        (values,) = context.saved_tensors
        share = values.sigmoid()
        return gradient * share * (1 + values * (1 - share))


def scripted(values: Tensor) -> Tensor:
    return torch.relu(torch.conv2d(values, torch.ones(6, 6, 1, 1)))


def in_script(function: Activation) -> Activation:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and still much used
        return torch.jit.script(function)


@pytest.mark.parametrize("name", LOOKING)
@pytest.mark.parametrize("hidden", [Swish.apply, scripted], ids=["function", "script"])
def test_a_net_that_hides_an_operation_is_refused(
    name: str, hidden: Activation, problem: tuple[Tensor, Tensor]
) -> None:
    hidden = in_script(hidden) if hidden is scripted else hidden
    with pytest.raises(BenchError, match=f"{name} cannot look into all of this net"):
        attribute(Net(hidden, in_place=False), *problem, find_method(name))


CHOICES: dict[str, Activation] = {
    "where": lambda values: torch.where(values > 0, values, 0.0),
    "maximum": lambda values: torch.maximum(values, torch.zeros_like(values)),
    "__mul__|mul": lambda values: values * (values > 0),
}


@pytest.mark.parametrize("name", ["guided_backprop", "deconvolution", "deeplift"])
@pytest.mark.parametrize("choice", CHOICES)
def test_an_activation_written_by_hand_is_refused(name: str, choice: str, problem: tuple[Tensor, Tensor]) -> None:
    """Beside others that are seen."""
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), Net(CHOICES[choice], in_place=False)).requires_grad_(False)
    with pytest.raises(BenchError, match=rf"operation '({choice})' of this net may be an activation"):
        attribute(net, *problem, find_method(name))
    with pytest.raises(BenchError, match=rf"operation '({choice})' of this net may be an activation"):
        has_relu(net, problem[0])


def test_a_script_is_refused_where_activations_are_to_be_smooth(problem: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(BenchError, match="an attack on heat maps cannot look into all of this net"):
        has_relu(Net(in_script(scripted), in_place=False), problem[0])


@pytest.mark.slow
def test_compiled_and_exported_nets_have_the_maps_of_the_net(problem: tuple[Tensor, Tensor]) -> None:
    net = Net(nn.ReLU(inplace=True), in_place=True)
    expected = maps(net, problem)
    batch = ({0: torch.export.Dim("batch")},)
    exported = PlainEval(torch.export.export(net, problem[:1], dynamic_shapes=batch).module())
    torch.testing.assert_close(maps(exported, problem), expected)
    torch.testing.assert_close(maps(torch.compile(net, backend="aot_eager"), problem), expected)
    compiled, given = (
        torch.compile(Net(F.softplus, in_place=False), backend="aot_eager"),
        problem[0].clone().requires_grad_(True),
    )
    with smooth(None):
        (gradient,) = torch.autograd.grad(compiled(given).sum(), given, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), given)
    assert float(second.abs().max()) > 0


class Gated(Net):
    """Its gate comes from operations of before, which have nothing to do with the image."""

    gate = nn.Parameter(torch.ones(1)) * 2.0

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) * self.gate


def test_hooks_of_modules_and_constants_with_a_graph_hide_nothing(problem: tuple[Tensor, Tensor]) -> None:
    net, gated = Net(F.relu, in_place=False), Gated(F.relu, in_place=False)
    gated.second.register_full_backward_hook(lambda *_: None)
    for name in ("guided_backprop", "deeplift", "grad_cam"):
        expected = 2 * attribute(net, *problem, find_method(name))
        torch.testing.assert_close(attribute(gated, *problem, find_method(name)), expected)


class Last(nn.Module):
    def forward(self, outputs: tuple[Tensor, Tensor]) -> Tensor:
        return outputs[0][:, -1]


@pytest.mark.parametrize("name", LOOKING[:-1])
def test_random_nets_and_recurrent_layers_are_refused(name: str, problem: tuple[Tensor, Tensor]) -> None:
    random = Net(lambda values: F.dropout(F.relu(values), 0.5, training=True), in_place=False)
    with pytest.raises(BenchError, match=f"{name} finds other logits than the net"):
        attribute(random, *problem, find_method(name))
    recurrent = nn.Sequential(nn.Flatten(2), nn.GRU(64, 4, batch_first=True), Last())
    with pytest.raises(BenchError, match="'gru' of this net has activations inside"):
        attribute(recurrent, *problem, find_method(name))


class Spare(Net):
    """Its last convolution is not used, or only its values are."""

    def __init__(self, *, used: bool) -> None:
        super().__init__(F.relu, in_place=False)
        self.used = used

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        with torch.set_grad_enabled(not self.used):
            spare = self.first(images)
        return logits + 0.1 * spare.detach().mean() if self.used else logits


@pytest.mark.parametrize("used", [False, True])
def test_grad_cam_takes_the_last_convolution_that_the_gradient_reaches(
    used: bool, problem: tuple[Tensor, Tensor]
) -> None:
    expected = attribute(Net(F.relu, in_place=False), *problem, find_method("grad_cam"))
    torch.testing.assert_close(attribute(Spare(used=used), *problem, find_method("grad_cam")), expected)


@pytest.mark.parametrize("name", ["gradient", *LOOKING])
def test_a_net_that_cuts_the_gradient_off_is_refused_in_one_clear_line(
    name: str, problem: tuple[Tensor, Tensor]
) -> None:
    cut = Net(F.relu, in_place=False)
    cut.linear.register_forward_hook(lambda *given: given[-1].detach())
    with pytest.raises(BenchError, match="the logits have no gradient to the image"):
        attribute(cut, *problem, find_method(name))
