"""LRP's rules for single operations, each against a net of which the relevance is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.attributions.registry import attribute, find_method
from bench.core.errors import BenchError
from bench.nets.adapter import Adapter, AdapterSettings

Operation = Callable[[Tensor], Tensor]


class Around(nn.Module):
    """A bias-free ReLU net with an operation in the middle: its LRP-epsilon is input times gradient."""

    def __init__(self, operation: Operation) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.operation, self.first = operation, nn.Conv2d(3, 6, 3, bias=False)
        self.last = nn.LazyLinear(4, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(F.relu(self.operation(F.relu(self.first(images)))).flatten(1))


@pytest.fixture(scope="module")
def problem() -> tuple[Tensor, Tensor]:
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3])


def set_first(values: Tensor) -> Tensor:
    values[:, 0] = values[:, 1]
    return values


KNOWN: dict[str, Operation] = {
    "split and cat": lambda values: torch.cat(values.split(2, 1)[::-1], 1),
    "chunk and stack": lambda values: torch.stack(values.chunk(3, 1)).movedim(0, 1),
    "unbind": lambda values: torch.stack(values.unbind(1)[1:], 1),
    "expand": lambda values: values[:, :1].expand(-1, 4, -1, -1),
    "interpolate": lambda values: F.interpolate(values, (9, 9), mode="bilinear", antialias=True),
    "nearest": lambda values: F.interpolate(values, scale_factor=2),
    "weighted sum": lambda values: torch.add(values, values.flip(1), alpha=-0.5),
    "weighted sum in place": lambda values: values.flip(1).add_(values, alpha=2.0),
    "set": lambda values: set_first(values * 1.0),
    "sum": lambda values: values.sum((2, 3)),
    "transposed": lambda values: values.mT,
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_lrp_epsilon_of_a_bias_free_relu_net_is_input_times_gradient(name: str, problem: tuple[Tensor, Tensor]) -> None:
    net = Around(KNOWN[name])
    net(problem[0])
    expected = attribute(net, *problem, find_method("input_x_gradient"))
    found = attribute(net, *problem, find_method("lrp_epsilon").given(epsilon=1e-12))
    torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-3)


UNKNOWN: dict[str, Operation] = {
    "topk": lambda values: values.flatten(1).topk(3)[0],
    "einsum": lambda values: torch.einsum("nchw,nchw->nc", [values, values]),
    "conv2d": lambda values: F.conv2d(values, values[:1, :, :2, :2]),
    "div": lambda values: torch.div(2.0, values + 1.0),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_operation_without_a_rule_is_refused_by_name(name: str, problem: tuple[Tensor, Tensor]) -> None:
    net = Around(UNKNOWN[name])
    net(problem[0])
    with pytest.raises(BenchError, match=f"the operation '{name}' of this net"):
        attribute(net, *problem, find_method("lrp_epsilon"))


def test_a_batch_norm_is_merged_however_it_is_called(problem: tuple[Tensor, Tensor]) -> None:
    """torch's own function takes its arguments in another order than the functional one."""
    norm = nn.BatchNorm2d(6).eval().requires_grad_(False)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    nn.init.normal_(norm.bias)

    class Called(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            given = norm.weight, norm.bias, norm.running_mean, norm.running_var
            return torch.batch_norm(values, *given, False, 0.1, norm.eps, False)

    first, last = nn.Conv2d(3, 6, 3), nn.Linear(216, 4)
    nets = [nn.Sequential(first, layer, nn.ReLU(), nn.Flatten(), last) for layer in (norm, Called())]
    maps = [attribute(net, *problem, find_method("lrp_epsilon")) for net in nets]
    torch.testing.assert_close(*maps)


@pytest.mark.parametrize("method", ["lrp_epsilon", "lrp_epsilon_plus"])
def test_nets_behind_the_adapter_keep_all_relevance(method: str) -> None:
    """Grey images for a net of three channels, resized and normalised, with the classes in another order."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(600, 4, bias=False))
    settings = AdapterSettings(mean=(0.2, 0.3, 0.4), std=(0.5, 0.6, 0.7), input_size=12, classes=(2, 0, 3))
    adapter, images, labels = Adapter(net, settings), 0.5 + 0.5 * torch.rand(2, 1, 8, 8), torch.tensor([0, 2])
    relevance = attribute(adapter, images, labels, find_method(method)).flatten(1).sum(1)
    expected = adapter(images).gather(1, labels[:, None]).squeeze(1)
    torch.testing.assert_close(relevance, expected.detach(), atol=1e-4, rtol=1e-3)


class Signs(nn.Module):
    """A bias-free convolution whose weights have one sign, added to what is left of itself if `summed`, then a linear layer."""

    def __init__(self, sign: float, *, summed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.summed, self.first, self.last = summed, nn.Conv2d(3, 6, 1, bias=False), nn.Linear(6, 4, bias=False)
        self.first.weight.data.abs_().mul_(sign)

    def forward(self, images: Tensor) -> Tensor:
        features = F.softplus(self.first(images))
        return self.last((features + F.relu(features) if self.summed else features).mean((2, 3)))


@pytest.mark.parametrize(
    ("name", "only_positive", "only_negative", "positive_sum"),
    [("lrp_epsilon", 1.0, 1.0, 1.0), ("lrp_epsilon_plus", 1.0, 0.0, 1.0), ("lrp_alpha2_beta1", 2.0, -1.0, 4.0)],
)
def test_what_becomes_of_relevance_where_contributions_have_one_sign(
    name: str, only_positive: float, only_negative: float, positive_sum: float, problem: tuple[Tensor, Tensor]
) -> None:
    """The literal rules: alpha 2, beta 1 doubles relevance without negative contributions, also at a residual sum."""
    for net, expected in (
        (Signs(1.0), only_positive), (Signs(-1.0), only_negative), (Signs(1.0, summed=True), positive_sum),
    ):  # fmt: skip
        logits = net(problem[0]).gather(1, problem[1][:, None])[:, 0]
        found = attribute(net, *problem, find_method(name)).flatten(1).sum(1) / logits
        torch.testing.assert_close(found, torch.full_like(found, expected), atol=1e-3, rtol=1e-3)
