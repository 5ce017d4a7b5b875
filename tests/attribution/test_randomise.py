from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.attribution.randomise import randomised_from_the_top
from bench.core.errors import BenchError


def weights(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def test_layers_are_drawn_anew_from_the_top_and_the_model_stays_as_it_was(standard: nn.Module) -> None:
    original = weights(standard)
    images = torch.rand(1, 1, 28, 28)
    stages = [(name, last, weights(net)) for name, last, net in randomised_from_the_top(standard, images, 0)]
    assert [name for name, *_ in stages] == ["linear2", "linear1", "conv2", "conv1"]
    assert [last for _, last, _ in stages] == [False, False, False, True]
    for number, (_, _, now) in enumerate(stages, start=1):
        random = [name for name, *_ in stages[:number]]
        for name, value in now.items():
            drawn = name.split(".")[0] in random
            assert torch.equal(value, original[name]) != drawn, name
    assert all(torch.equal(value, original[name]) for name, value in standard.state_dict().items())


def test_the_draw_is_keyed_by_the_seed(standard: nn.Module) -> None:
    images = torch.rand(1, 1, 28, 28)
    nets = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(nets))
        nets.append([weights(net) for *_, net in randomised_from_the_top(standard, images, seed)][-1])
    assert torch.equal(nets[0]["conv1.weight"], nets[1]["conv1.weight"])
    assert not torch.equal(nets[0]["conv1.weight"], nets[2]["conv1.weight"])


def test_a_net_without_layers_is_refused() -> None:
    with pytest.raises(BenchError, match="this net has none"):
        next(randomised_from_the_top(nn.Sequential(nn.Flatten()), torch.rand(1, 1, 2, 2), 0))
