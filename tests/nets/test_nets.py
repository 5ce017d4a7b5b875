from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.core.errors import BenchError
from bench.nets import architectures, build_net, classifiers, registry
from bench.nets.registry import register_modules, register_net

GREY = {"in_channels": 1, "image_size": 28, "num_classes": 10, "mean": [0.5], "std": [0.25]}


def test_the_small_net_has_the_stated_number_of_parameters() -> None:
    net = build_net("small_cnn", GREY)
    assert sum(parameter.numel() for parameter in net.parameters()) == 436_202
    assert net(torch.rand(3, 1, 28, 28)).shape == (3, 10)


def test_the_small_net_takes_colour_and_other_sizes() -> None:
    net = build_net("small_cnn", {**GREY, "in_channels": 3, "image_size": 32, "mean": [0.5] * 3, "std": [0.2] * 3})
    assert net(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_the_net_normalises_inside() -> None:
    net = build_net("small_cnn", GREY)
    bare = nn.Sequential(*list(net.children())[1:])
    images = torch.rand(2, 1, 28, 28)
    assert torch.allclose(net(images), bare((images - 0.5) / 0.25), atol=1e-6)


def test_softplus_nets_have_no_relu() -> None:
    net = build_net("small_cnn", {**GREY, "activation": "softplus", "softplus_beta": 3.0})
    assert not any(isinstance(module, nn.ReLU) for module in net.modules())
    assert sum(isinstance(module, nn.Softplus) and module.beta == 3.0 for module in net.modules()) == 3


def test_an_unknown_architecture_suggests_the_nearest() -> None:
    with pytest.raises(BenchError, match="did you mean small_cnn"):
        build_net("smal_cnn", GREY)


@pytest.mark.parametrize("change", [{"nonsense": 1}, {"image_size": 27}, {"activation": "gelu"}])
def test_parameters_a_net_does_not_take_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(BenchError, match="cannot be built"):
        build_net("small_cnn", {**GREY, **change})


STRIPED = """
from torch import nn
from bench.nets.registry import NetOptions, register_classifier

@register_classifier
def striped_cnn(net: NetOptions, *, width: int = 4) -> dict[str, nn.Module]:
    layers = {"conv": nn.Conv2d(net.in_channels, width, (net.image_size, 1)), "act": net.act(), "flatten": nn.Flatten()}
    return {**layers, "linear": nn.Linear(width * net.image_size, net.num_classes)}
"""


def test_a_new_net_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "striped.py").write_text(STRIPED)
    monkeypatch.setattr(classifiers, "__path__", [*classifiers.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "_FACTORIES", dict(registry._FACTORIES))
    monkeypatch.setitem(sys.modules, "bench.nets.classifiers.striped", None)
    del sys.modules["bench.nets.classifiers.striped"]
    register_modules(classifiers)
    assert "striped_cnn" in architectures()
    net = build_net("striped_cnn", {**GREY, "width": 2, "activation": "softplus"})
    assert net(torch.rand(3, 1, 28, 28)).shape == (3, 10)
    assert [name for name, _ in net.named_children()] == ["normalization", "conv", "act", "flatten", "linear"]
    with pytest.raises(BenchError, match=r"striped_cnn.*cannot be built.*hidden"):
        build_net("striped_cnn", {**GREY, "hidden": 2})


def test_a_name_cannot_be_registered_twice() -> None:
    def small_cnn() -> nn.Module:
        return nn.Identity()

    with pytest.raises(ValueError, match="twice"):
        register_net(small_cnn)
    assert "small_cnn" in architectures()
