"""What holds for the maps of every net, tried on nets out of a grammar; hundreds: `pytest -m slow -k grammar`."""

from __future__ import annotations

import warnings

import captum.attr as captum
import pytest
import torch
from torch import Tensor, nn

from bench.attributions.registry import MapRequest, attribute, find_method, our_methods
from bench.core.errors import BenchError
from tests.grammar import Net, numbered, plain, prepared, random_images, random_net
from tests.grammar_parts import Twice

CLAMP_IS_NO_RELU = bool(torch.func.grad(lambda x: x.clamp(min=0.0))(torch.zeros(())))
FEW = {"integrated_gradients": {"steps": 4}, "smoothgrad": {"samples": 2}, "lrp_epsilon": {"epsilon": 1e-9}}


def maps_of(net: nn.Module, images: Tensor, name: str, **parameters: object) -> Tensor | None:
    """The maps of classes 0, 1, 2, 0, ...; None where the method refuses the net in one clear line."""
    labels = torch.arange(len(images)) % 3
    try:
        return attribute(net, images, labels, find_method(name).given(**(FEW.get(name, {}) | parameters)))
    except BenchError as error:
        assert str(error).endswith(".") and "\n" not in str(error)
        return None


def assert_same(found: Tensor, expected: Tensor, what: object, tolerance: float = 1e-6) -> None:
    off = float((found - expected).abs().max()) / max(float(expected.abs().max()), 1e-12)
    assert off <= tolerance, what


def pair(seed: int, family: str = "any") -> tuple[Net, Tensor]:
    """A net and four images, in float64 and with no two pixels alike, so that rounding decides no tie of a max-pooling."""
    net, generator = random_net(seed, family).double(), torch.Generator().manual_seed(seed)
    images = random_images(net.kind, 4, seed).double()
    return net, images + 1e-6 * torch.rand(images.shape, generator=generator, dtype=torch.float64) * (0.5 - images)


@pytest.mark.parametrize("seed", numbered(16, 400))
def test_a_prepared_net_has_the_maps_of_the_net_itself(seed: int) -> None:
    net, images = pair(seed)
    ready = prepared(net)
    for name in our_methods():
        found, expected = maps_of(ready, images, name), maps_of(net, images, name)
        assert (found is None) == (expected is None), f"{name}: {net}"
        if found is not None and expected is not None:
            assert_same(found, expected, f"{name}: {net}")


@pytest.mark.parametrize("family", ["any", "hidden"])
@pytest.mark.parametrize("seed", numbered(12, 300))
def test_however_a_net_is_written_its_maps_are_the_same_or_refused(seed: int, family: str) -> None:
    net, images = pair(seed, family)
    simple = plain(net)
    if CLAMP_IS_NO_RELU and "clamp" in str(net):
        pytest.skip("torch 2.6 gives a clamp at its bound the slope 1, a ReLU the slope 0")
    for name in our_methods():
        found, expected = maps_of(net, images, name), maps_of(simple, images, name)
        if found is not None and expected is not None:
            assert_same(found, expected, f"{name}: {net}")


@pytest.mark.parametrize("seed", numbered(12, 300))
def test_of_degree_one_nets_lrp_and_integrated_gradients_are_input_times_gradient(seed: int) -> None:
    net, images = pair(seed, "homogeneous")
    for each in (net, prepared(net)):
        expected = maps_of(each, images, "input_x_gradient")
        logits = each(images).gather(1, torch.arange(len(images))[:, None] % 3).squeeze(1)
        assert expected is not None
        assert_same(expected.flatten(1).sum(1), logits, net)
        for name in ("lrp_epsilon", "integrated_gradients"):
            found = maps_of(each, images, name)
            if "of one" not in str(net):
                assert found is not None, f"{name} refuses {net}"
            if found is not None:
                assert_same(found, expected, f"{name}: {net}", 1e-3)


@pytest.mark.parametrize("family", ["any", "smooth"])
@pytest.mark.parametrize("seed", numbered(6, 200))
def test_contributions_add_up_to_the_logits_change_or_the_net_is_refused(seed: int, family: str) -> None:
    net, images = pair(seed, family)
    labels = torch.arange(len(images))[:, None] % 3
    change = (net(images) - net(0 * images)).gather(1, labels).squeeze(1)
    names = {"deeplift": {}} | ({"integrated_gradients": {"steps": 48}} if family == "smooth" else {})
    for name, parameters in names.items():
        found = maps_of(net, images, name, **parameters)
        if found is not None and "attention" not in str(net):  # of which a hundredth may be missing
            assert_same(found.flatten(1).sum(1), change, f"{name}: {net}", 1e-2)


@pytest.mark.parametrize("seed", numbered(6, 200))
def test_the_gradient_is_the_change_of_the_logit(seed: int) -> None:
    """Against a finite difference in float64, of the prepared net too."""
    net, images = pair(seed, "smooth")
    labels = torch.arange(4)
    direction = torch.randn(images.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    step = 1e-5
    ahead, behind = (net(images + sign * step * direction) for sign in (1, -1))
    change = ((ahead - behind) / (2 * step)).gather(1, labels[:, None] % 3).squeeze(1)
    for each in (net, prepared(net)):
        request = MapRequest(images, labels % 3, labels)
        gradient = find_method("gradient").maps(each, request)
        assert_same((gradient * direction).flatten(1).sum(1), change, net, 1e-5)


class Modules(nn.Module):
    """A net of ReLUs with an `nn.ReLU` for each of them, as captum's hooks need it."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = plain(net)
        for module in list(self.net.modules()):
            for name, part in module.named_children():
                if getattr(part, "word", "") == "relu":
                    setattr(module, name, nn.ReLU())
        assert any(isinstance(module, nn.ReLU) for module in self.modules())

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.net(images)
        return result

    def last_convolution(self, images: Tensor) -> nn.Module:
        ran: list[nn.Module] = []
        hooks = [
            module.register_forward_hook(lambda module, *_: ran.append(module))
            for module in self.modules()
            if isinstance(module, nn.Conv2d)
        ]
        self(images)
        for hook in hooks:
            hook.remove()
        return ran[-1]


@pytest.mark.parametrize("seed", numbered(10, 200))
def test_relu_nets_have_captums_maps(seed: int) -> None:
    net, images = pair(seed, "relu")
    assert not any(isinstance(module, Twice) for module in net.modules())
    reference, labels = Modules(net), torch.arange(4) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cam = captum.LayerGradCam(reference, reference.last_convolution(images))
        coarse = cam.attribute(images, target=labels, relu_attributions=True)
        expected = {
            "guided_backprop": captum.GuidedBackprop(reference).attribute(images, target=labels),
            "deconvolution": captum.Deconvolution(reference).attribute(images, target=labels),
            "grad_cam": captum.LayerAttribution.interpolate(coarse, tuple(images.shape[2:]), "bilinear"),
        }
    for name, values in expected.items():
        for each in (net, prepared(net)):
            found = maps_of(each, images, name)
            if found is not None:
                assert_same(found, values.detach(), f"{name}: {net}")
    assert maps_of(plain(net), images, "guided_backprop") is not None, net
