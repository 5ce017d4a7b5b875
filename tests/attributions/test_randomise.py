from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from bench.attributions.randomise import randomised_from_the_top
from bench.core.errors import BenchError
from bench.nets.logit_scale import ScaledLogits


def weights(net: nn.Module) -> dict[str, Tensor]:
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


def stack(wrap: Callable[[nn.Module], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        wrap(nn.Conv2d(1, 4, 3, bias=False)), nn.ReLU(), nn.Flatten(), wrap(nn.Linear(4 * 36, 3, bias=False))
    )


def pruned(layer: nn.Module) -> nn.Module:
    prune.random_unstructured(layer, "weight", 0.3)
    return layer


WRAPPINGS = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "old weight_norm": nn.utils.weight_norm,
    "old spectral_norm": nn.utils.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "pruned": pruned,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
@pytest.mark.parametrize("name", WRAPPINGS)
def test_layers_whose_weights_are_computed_are_drawn_as_plain_ones_are(name: str) -> None:
    images = torch.rand(1, 1, 8, 8)
    model = stack(WRAPPINGS[name]).eval().requires_grad_(False)
    before = model(images)
    *_, (_, last, net) = randomised_from_the_top(model, images, 0)
    *_, (_, _, plain) = randomised_from_the_top(stack(lambda layer: layer).eval(), images, 0)
    assert last
    assert torch.equal(net(images), plain(images))
    assert torch.equal(model(images), before)


class Tokens(nn.Module):
    """One-channel images of 8 x 8 pixels as four tokens of 16 pixels."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.unfold(images, 4, stride=4).transpose(1, 2)


def test_attention_is_drawn_anew_too() -> None:
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(16, 2, 8, batch_first=True)
    model = nn.Sequential(Tokens(), block, nn.Flatten(), nn.Linear(64, 3)).eval().requires_grad_(False)
    original = weights(model)
    stages = [(name, weights(net)) for name, _, net in randomised_from_the_top(model, torch.rand(1, 1, 8, 8), 0)]
    assert [name for name, _ in stages] == ["3", "1.linear2", "1.linear1", "1.self_attn"]
    for name in ("3", "1.linear2", "1.linear1", "1.self_attn.in_proj", "1.self_attn.out_proj"):
        weight = f"{name}_weight" if name.endswith("in_proj") else f"{name}.weight"
        assert not torch.equal(stages[-1][1][weight], original[weight]), weight


class Stubborn(nn.Linear):
    """A layer that has no initialiser of its own to draw from."""

    def reset_parameters(self) -> None:
        nn.init.constant_(self.weight, 0.5)


def computed_weight(layer: nn.Linear, _: object) -> None:
    layer.weight.data.copy_(layer.source)  # type: ignore[arg-type]


def test_a_layer_that_keeps_its_weights_is_refused() -> None:
    same = nn.Sequential(nn.Flatten(), Stubborn(4, 3))
    hooked = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    hooked[1].register_buffer("source", torch.rand(3, 4))
    hooked[1].register_forward_pre_hook(computed_weight)
    for net in (same, hooked):
        with pytest.raises(BenchError, match=r"layer 1 .*keeps its weights"):
            list(randomised_from_the_top(net.eval(), torch.rand(1, 1, 2, 2), 0))


def test_a_net_whose_logits_are_scaled_has_the_same_stages(standard: nn.Module) -> None:
    images = torch.rand(1, 1, 28, 28)
    plain, scaled = (
        [(name, weights(net)["conv1.weight"]) for name, _, net in randomised_from_the_top(model, images, 0)]
        for model in (standard, ScaledLogits(standard, 2.0))
    )
    assert [name for name, _ in plain] == [name for name, _ in scaled]
    assert all(torch.equal(first, second) for (_, first), (_, second) in zip(plain, scaled, strict=True))
