"""Every architecture against the parameter counts in the papers' files, and against what recipes ask of a net."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.attributions.registry import attribute, our_methods
from bench.nets import architectures, build_net
from bench.nets.preparation import prepare_net

GREY = {"in_channels": 1, "image_size": 28, "num_classes": 10, "mean": [0.5], "std": [0.25]}
COLOUR = {"in_channels": 3, "image_size": 32, "num_classes": 10, "mean": [0.5] * 3, "std": [0.25] * 3}
PAPER_WRN = {"depth": 28, "widen": 10, "dropout": 0.3}

COUNTS = [
    ("small_cnn", GREY, 436_202),
    ("patch_cnn", GREY, 51_930),
    ("simple_cnn", GREY, 3_274_634),
    ("mnist_cnn", GREY, 12_908_426),
    ("cifar_cnn", COLOUR, 2_168_362),
    ("lenet", COLOUR, 1_116_970),
    ("resnet18", COLOUR, 11_173_962),
    ("wide_resnet", COLOUR | PAPER_WRN, 36_489_290),
    ("resnet18", COLOUR | {"image_size": 224, "num_classes": 100}, 11_227_812),
]


@pytest.mark.parametrize(
    ("name", "parameters", "count"), COUNTS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_number_of_parameters_is_the_papers(name: str, parameters: dict[str, object], count: int) -> None:
    net = build_net(name, parameters)
    assert sum(parameter.numel() for parameter in net.parameters()) == count


def test_every_architecture_is_counted() -> None:
    zoos = {"timm", "torchvision", "robustbench"}  # other people's nets, tested in tests/catalog/test_sources.py
    assert {name for name, _, _ in COUNTS} == set(architectures()) - zoos


@pytest.mark.parametrize("activation", ["relu", "softplus"])
@pytest.mark.parametrize("name", sorted({name for name, _, _ in COUNTS}))
def test_every_net_gives_logits_normalises_inside_and_allows_double_back_propagation(
    name: str, activation: str
) -> None:
    net = build_net(name, {**COLOUR, "activation": activation}).eval()
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    logits = net(images)
    assert logits.shape == (2, 10)
    assert net.get_buffer("normalization.std").flatten().tolist() == [0.25] * 3
    kinds = {type(module) for module in net.modules()}
    assert (nn.ReLU in kinds) == (activation == "relu")
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), images, create_graph=True)
    gradient.square().sum().backward()
    weights = [parameter for parameter in net.parameters() if parameter.dim() > 1]
    assert all(weight.grad is not None and torch.isfinite(weight.grad).all() for weight in weights)


@pytest.mark.parametrize(
    ("name", "change"),
    [("wide_resnet", {"depth": 11}), ("simple_cnn", {"image_size": 30}), ("mnist_cnn", {"image_size": 27})],
)
def test_sizes_a_net_cannot_take_are_refused(name: str, change: dict[str, object]) -> None:
    from bench.core.errors import BenchError

    with pytest.raises(BenchError, match="must be"):
        build_net(name, {**GREY, **change})


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.slow) if name == "resnet18" else name for name in sorted({name for name, _, _ in COUNTS})
])  # fmt: skip
def test_a_prepared_net_has_the_maps_of_the_net_by_every_method(name: str, channels: int) -> None:
    """In float64, since LRP divides by sums of contributions that nearly cancel."""
    torch.manual_seed(0)
    given = {"in_channels": channels, "image_size": 8, "num_classes": 5, "mean": [0.5], "std": [0.25]}
    net = build_net(name, given).double()
    images, labels = torch.rand(2, channels, 8, 8, dtype=torch.float64), torch.tensor([1, 4])
    few = {"integrated_gradients": {"steps": 2}, "smoothgrad": {"samples": 1}}
    methods = {key: method.given(**few.get(key, {})) for key, method in our_methods().items()}
    plain = {key: attribute(net, images, labels, method) for key, method in methods.items()}
    net = prepare_net(net)
    for key, expected in plain.items():
        difference = (attribute(net, images, labels, methods[key]) - expected).abs().max()
        assert difference <= 1e-7 * expected.abs().max(), key
