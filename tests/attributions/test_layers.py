"""Grad-CAM at a named layer: channels-last features and tokens lie where they should, or are refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.attributions.registry import attribute, find_method
from bench.core.errors import BenchError

LABELS = torch.tensor([1, 2])


def images(height: int, width: int) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def vit(**kinds: Any) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer  # takes seconds, of which other workers need none

    torch.manual_seed(0)
    net = VisionTransformer(img_size=(32, 48), patch_size=8, embed_dim=20, depth=2, num_heads=2, num_classes=5, **kinds)
    nn.init.normal_(net.head.weight)
    return net.eval().requires_grad_(False)


def swin() -> nn.Module:
    from torchvision.models import SwinTransformer

    torch.manual_seed(0)
    net = SwinTransformer([4, 4], 24, [1, 1], [2, 2], [4, 4], stochastic_depth_prob=0.0, num_classes=5)
    return net.eval().requires_grad_(False)


def expected(net: nn.Module, layer: str, pixels: Tensor, to_grid: Callable[[Tensor], Tensor]) -> Tensor:
    """Grad-CAM by hand, where the layout is known."""
    kept: list[Tensor] = []
    hook = net.get_submodule(layer).register_forward_hook(lambda _, __, output: kept.append(output))
    logits = net(pixels.clone().requires_grad_(True))
    hook.remove()
    (slope,) = torch.autograd.grad(logits.gather(1, LABELS[:, None]).sum(), kept[0])
    maps = (to_grid(slope).mean((2, 3), keepdim=True) * to_grid(kept[0])).sum(1, keepdim=True).clamp_min(0.0)
    return F.interpolate(maps, pixels.shape[2:], mode="bilinear").detach()


@pytest.mark.parametrize(
    "kinds",
    [{}, {"reg_tokens": 3}, {"class_token": False, "global_pool": "avg"},
     {"class_token": False, "reg_tokens": 2, "global_pool": "avg"}],
)  # fmt: skip
def test_tokens_of_patches_lie_on_the_grid_and_class_token_and_registers_do_not(kinds: dict[str, Any]) -> None:
    net, pixels = vit(**kinds), images(32, 48)
    before = net(pixels)
    found = attribute(net, pixels, LABELS, find_method("grad_cam").given(layer="blocks.1.norm1"))
    by_hand = expected(
        net, "blocks.1.norm1", pixels, lambda tokens: tokens[:, -24:].transpose(1, 2).reshape(2, 20, 4, 6)
    )
    torch.testing.assert_close(found, by_hand)
    assert float(found.max()) > 0 and torch.equal(net(pixels), before)


@pytest.mark.parametrize("size", [(32, 32), (32, 64)])
def test_channels_last_features_lie_on_the_grid(size: tuple[int, int]) -> None:
    net, pixels = swin(), images(*size)
    for layer in ("features.1", "features.3.0.norm2"):
        found = attribute(net, pixels, LABELS, find_method("grad_cam").given(layer=layer))
        by_hand = expected(net, layer, pixels, lambda values: values.permute(0, 3, 1, 2))
        torch.testing.assert_close(found, by_hand)
        assert float(found.max()) > 0


@pytest.mark.parametrize(
    ("layer", "line"),
    [("head", "cannot tell where on the image its features of shape"), ("blocks.0.atn", "unknown layer of this net"),
     ("blocks.0.attn.q_norm", "cannot tell where on the image")],
)  # fmt: skip
def test_a_layer_without_a_place_on_the_image_is_refused_in_one_line(layer: str, line: str) -> None:
    with pytest.raises(BenchError, match=line) as caught:
        attribute(vit(), images(32, 48), LABELS, find_method("grad_cam").given(layer=layer))
    assert "\n" not in str(caught.value)


def test_a_layer_that_runs_twice_is_refused() -> None:
    same = nn.ReLU()
    net = nn.Sequential(nn.Conv2d(3, 4, 3), same, nn.Conv2d(4, 4, 3), same, nn.Flatten(), nn.Linear(64, 5))
    with pytest.raises(BenchError, match="needs a layer that runs once for an image; 1 runs 2 times"):
        attribute(net, images(8, 8), LABELS, find_method("grad_cam").given(layer="1"))


def test_that_attention_follows_the_last_convolution_is_said() -> None:
    (finding,) = find_method("grad_cam").findings(vit(), images(32, 48)[:1])
    assert finding.severity == "warning"
    assert finding.evidence == "grad_cam looks at the last convolution, patch_embed.proj, before the net's attention"
