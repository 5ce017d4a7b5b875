from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench import attack, attribute, evaluate
from bench.attacks.pgd import attacked_model
from bench.core.threat import Norm
from bench.nets.logit_scale import HIGH, LOW, at_usual_scale

SCALES = [1e-30, 1e-9, 1e-4, 1e4, 1e30]


class Times(nn.Module):
    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net, self.by = net, factor

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images) * self.by


@pytest.mark.parametrize("scale", SCALES)
def test_logits_of_any_size_get_the_usual_spread_and_keep_their_predictions(
    standard: nn.Module, fashion_images: tuple[Tensor, Tensor], scale: float
) -> None:
    images = fashion_images[0][:8]
    usual = at_usual_scale(Times(standard, scale), images, 4)
    with torch.no_grad():
        logits, plain = usual(images), standard(images)
    top = logits.topk(3).values
    assert LOW < float((top[:, 0] - top[:, 2]).median()) < HIGH
    assert torch.equal(logits.argmax(1), plain.argmax(1))
    torch.testing.assert_close(logits / logits.std(), plain / plain.std())


def test_a_net_of_usual_size_is_left_alone(standard: nn.Module, fashion_images: tuple[Tensor, Tensor]) -> None:
    assert at_usual_scale(standard, fashion_images[0][:8], 8) is standard


class As(nn.Module):
    def __init__(self, net: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.net, self.dtype = net, dtype

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images).to(self.dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(
    ("name", "norm", "eps"), [("cascade", "linf", 0.2), ("fab-t", "l2", 5.0), ("sweep", "l1", 60.0)]
)
def test_logits_of_any_type_can_be_attacked(
    standard: nn.Module, fashion_images: tuple[Tensor, Tensor], dtype: torch.dtype, name: str, norm: Norm, eps: float
) -> None:
    """The cascade mixed types, FAB-T and the sweep's way along the boundary failed in float64."""
    images, labels = fashion_images[0][:4], fashion_images[1][:4]
    usual = at_usual_scale(As(standard, dtype), images, 4)
    assert usual(images).dtype == torch.float32 and torch.equal(usual(images), standard(images).to(dtype).float())
    keywords = {
        "cascade": {"stages": [{"steps": 2}, {"steps": 2, "targets": 2}]}, "fab-t": {"iterations": 2},
        "sweep": {"steps": 3, "boundary": {"steps": 3, "targets": 2, "restarts": 3, "kept": 1}},
    }  # fmt: skip
    found = attack(As(standard, dtype), images, labels, norm=norm, eps=eps, attack=name, **keywords[name])
    assert found.robust_accuracy < 1.0


def test_large_logits_in_float64_are_scaled_before_they_are_rounded(
    standard: nn.Module, fashion_images: tuple[Tensor, Tensor]
) -> None:
    images = fashion_images[0][:8]
    usual = at_usual_scale(Times(As(standard, torch.float64), 1e60), images, 8)
    assert torch.equal(usual(images).argmax(1), standard(images).argmax(1)) and usual(images).isfinite().all()


def test_a_class_that_is_ruled_out_says_nothing_of_the_logits_size(
    standard: nn.Module, fashion_images: tuple[Tensor, Tensor]
) -> None:
    class RuledOut(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = standard(images)
            return logits.index_fill(1, torch.tensor([3, 6]), -1e9)

    net = RuledOut()
    assert at_usual_scale(net, fashion_images[0][:8], 8) is net


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_robust_accuracy_does_not_depend_on_the_size_of_the_logits(
    standard: nn.Module, fashion_images: tuple[Tensor, Tensor], scale: float
) -> None:
    net = Times(standard, scale)
    result = evaluate(net, "cross_norm_quick", examples=6)
    assert result.value("clean_accuracy") > 0.5
    assert result.value("union_accuracy") == 0.0
    images, labels = fashion_images[0][:6], fashion_images[1][:6]
    assert attack(net, images, labels, norm="linf", eps=0.1, steps=10).robust_accuracy == 0.0


def test_a_scaled_net_stays_in_its_mode() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False), nn.Dropout()).eval()
    net[1].weight.data.mul_(1e-9)
    scaled = at_usual_scale(net, torch.rand(2, 1, 2, 2), 2)
    assert scaled is not net and not scaled.training
    with attacked_model(scaled):
        pass
    assert not net.training and not net[2].training


@pytest.mark.parametrize("method", ["gradient", "lrp_epsilon", "deeplift", "integrated_gradients", "grad_cam"])
def test_maps_are_as_large_as_the_logits_and_otherwise_the_same(
    standard: nn.Module, fashion_images: tuple[Tensor, Tensor], method: str
) -> None:
    images, labels = fashion_images[0][:2], fashion_images[1][:2]
    plain = attribute(standard, images, labels, method=method)
    small = attribute(Times(standard, 2.0**-40), images, labels, method=method)
    torch.testing.assert_close(small * 2.0**40, plain, rtol=1e-3, atol=1e-4 * float(plain.abs().max()))
