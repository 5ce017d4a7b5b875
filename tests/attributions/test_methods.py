from __future__ import annotations

import captum.attr as captum
import pytest
import torch
from torch import Tensor, nn

from bench.attributions.registry import MapRequest, attribute, find_method, our_methods
from bench.core.errors import BenchError
from bench.nets import build_net

NETS = ("small_cnn", "simple_cnn", "wide_resnet")


def make_net(architecture: str, activation: str = "relu", channels: int = 3, size: int = 16) -> nn.Module:
    """A net with random weights and, unlike a fresh one, batch norms that do something."""
    torch.manual_seed(0)
    common = {
        "in_channels": channels,
        "image_size": size,
        "num_classes": 10,
        "mean": [0.4] * channels,
        "std": [0.3] * channels,
    }
    net = build_net(architecture, {**common, "activation": activation}).eval().requires_grad_(False)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0.0, 0.1)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.1)
    return net


@pytest.fixture(scope="module")
def problem() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(4, 3, 16, 16, generator=generator), torch.tensor([1, 2, 3, 4])


def assert_same(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    found, expected = found.detach(), expected.detach()
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


FEW = {"integrated_gradients": {"steps": 6}, "smoothgrad": {"samples": 3}}
"""Parameters that make the slow methods quick."""


@pytest.mark.parametrize("activation", ["relu", "softplus"])
@pytest.mark.parametrize("architecture", NETS)
def test_deeplift_and_integrated_gradients_add_up_to_the_logits_change(
    architecture: str, activation: str, problem: tuple[Tensor, Tensor]
) -> None:
    """simple_cnn has max-pooling, on which captum's DeepLIFT fails."""
    net, (images, labels) = make_net(architecture, activation), problem
    change = (net(images) - net(0 * images)).gather(1, labels[:, None]).squeeze(1)
    deeplift = attribute(net, images, labels, find_method("deeplift")).flatten(1).sum(1)
    torch.testing.assert_close(deeplift, change, atol=1e-4, rtol=1e-3)
    if activation == "softplus":
        integrated = attribute(net, images, labels, find_method("integrated_gradients")).flatten(1).sum(1)
        torch.testing.assert_close(integrated, change, atol=1e-3, rtol=1e-2)


def test_smoothgrad_is_captums_in_the_mean(standard: nn.Module, fashion_images: tuple[Tensor, Tensor]) -> None:
    images, labels = fashion_images[0][:4], fashion_images[1][:4]
    torch.manual_seed(0)
    tunnel = captum.NoiseTunnel(captum.Saliency(standard))
    expected = tunnel.attribute(images, nt_type="smoothgrad", nt_samples=150, stdevs=0.1, target=labels, abs=False)
    found = attribute(standard, images, labels, find_method("smoothgrad").given(samples=150, sigma=0.1))
    plain = attribute(standard, images, labels, find_method("gradient"))
    cosine = torch.cosine_similarity(found.flatten(1), expected.flatten(1))
    assert (cosine > 0.95).all()
    assert (cosine > torch.cosine_similarity(found.flatten(1), plain.flatten(1))).all()


def test_smoothgrads_noise_goes_with_the_example_not_the_batch(
    standard: nn.Module, fashion_images: tuple[Tensor, Tensor]
) -> None:
    images, labels = fashion_images
    ids = torch.arange(100, 164)
    method = find_method("smoothgrad").given(samples=4)
    whole = attribute(standard, images, labels, method, example_ids=ids)
    chosen = torch.tensor([40, 3, 17])
    part = attribute(standard, images[chosen], labels[chosen], method, example_ids=ids[chosen], batch_size=2)
    assert_same(part, whole[chosen])
    assert not torch.allclose(whole, attribute(standard, images, labels, method, example_ids=ids, seed=1))


def test_grad_cam_is_captums(problem: tuple[Tensor, Tensor]) -> None:
    net, (images, labels) = make_net("simple_cnn"), problem
    layer = net.conv2
    coarse = captum.LayerGradCam(net, layer).attribute(images, target=labels, relu_attributions=True)
    expected = captum.LayerAttribution.interpolate(coarse, (16, 16), "bilinear")
    found = attribute(net, images, labels, find_method("grad_cam"))
    assert found.shape == (4, 1, 16, 16)
    assert_same(found, expected)


def plain_net(bias: bool) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=bias), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, bias=bias), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10, bias=bias),
    ).eval().requires_grad_(False)  # fmt: skip


@pytest.mark.parametrize("name", ["lrp_epsilon", "lrp_epsilon_plus"])
def test_lrp_is_captums_where_captum_has_the_rule(name: str, problem: tuple[Tensor, Tensor]) -> None:
    from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule

    net, reference = plain_net(bias=True), plain_net(bias=True)
    for module in reference:
        if isinstance(module, nn.ReLU):
            continue
        plus = name == "lrp_epsilon_plus" and isinstance(module, nn.Conv2d)
        module.rule = Alpha1_Beta0_Rule(set_bias_to_zero=True) if plus else EpsilonRule(1e-6)
    expected = captum.LRP(reference).attribute(problem[0], target=problem[1])
    assert_same(attribute(net, *problem, find_method(name)), expected, 5e-3)


@pytest.mark.parametrize("name", ["lrp_epsilon", "lrp_epsilon_plus", "lrp_alpha2_beta1"])
def test_lrp_conserves_the_logit_without_biases(name: str, problem: tuple[Tensor, Tensor]) -> None:
    net, (images, labels) = plain_net(bias=False), problem
    relevance = attribute(net, images, labels, find_method(name))
    logits = net(images).gather(1, labels[:, None]).squeeze(1)
    torch.testing.assert_close(relevance.flatten(1).sum(1), logits, atol=2e-3, rtol=2e-2)
    if name == "lrp_epsilon_plus":  # no convolution turns a sign around
        logit_signs = attribute(net[:-1] + nn.Sequential(net[-1]), images, labels, find_method(name))
        assert_same(logit_signs, relevance)


def test_lrp_merges_batch_norms_and_splits_residual_sums() -> None:
    """A block whose relevance is known: y = bn(conv(x)) + x with 1x1 weights, all positive."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0.0)
            nn.init.constant_(self.conv.weight, 2.0)
            nn.init.constant_(self.norm.running_var, 4.0)

        def forward(self, images: Tensor) -> Tensor:
            return (self.norm(self.conv(images)) * 1.0 + images).flatten(1)

    images = 0.9 * torch.rand(2, 1, 3, 3) + 0.1
    net = Block().eval().requires_grad_(False)
    labels = torch.tensor([4, 7])
    expected = torch.zeros(2, 9).scatter(1, labels[:, None], 2.0 * images.flatten(1).gather(1, labels[:, None]))
    for name in ("lrp_epsilon", "lrp_epsilon_plus"):
        found = attribute(net, images, labels, find_method(name))
        torch.testing.assert_close(found.flatten(1), expected, atol=1e-4, rtol=1e-4)


def test_guided_backprop_on_softplus_is_not_the_plain_gradient(problem: tuple[Tensor, Tensor]) -> None:
    net = make_net("small_cnn", "softplus")
    guided = attribute(net, *problem, find_method("guided_backprop"))
    plain = attribute(net, *problem, find_method("gradient"))
    assert float((guided - plain).abs().max()) > 0.1 * float(plain.abs().max())


class Functional(nn.Module):
    """Activations as function calls, which no module hook sees."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.linear = nn.Conv2d(3, 8, 3), nn.Linear(8 * 14 * 14, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(torch.relu(self.conv(images)).flatten(1))


def test_deeplift_takes_nets_that_use_a_module_twice(problem: tuple[Tensor, Tensor]) -> None:
    net, (images, labels) = make_net("resnet18"), problem
    change = (net(images) - net(0 * images)).gather(1, labels[:, None]).squeeze(1)
    found = attribute(net, images, labels, find_method("deeplift")).flatten(1).sum(1)
    torch.testing.assert_close(found, change, atol=1e-4, rtol=1e-3)


def test_functional_activations_do_not_escape(problem: tuple[Tensor, Tensor]) -> None:
    net = Functional().eval().requires_grad_(False)
    modules = nn.Sequential(net.conv, nn.ReLU(), nn.Flatten(), net.linear).eval()
    for name in ("guided_backprop", "deconvolution", "lrp_epsilon_plus", "deeplift"):
        assert_same(attribute(net, *problem, find_method(name)), attribute(modules, *problem, find_method(name)))


DIFFERENTIABLE = [name for name, method in our_methods().items() if method.differentiable]


@pytest.mark.parametrize(
    ("architecture", "name"),
    [*(("small_cnn", name) for name in DIFFERENTIABLE), ("simple_cnn", "guided_backprop"),
     *(("wide_resnet", name) for name in ("guided_backprop", "lrp_epsilon_plus"))],
)  # fmt: skip
def test_the_gradient_of_a_map_is_its_change(architecture: str, name: str, problem: tuple[Tensor, Tensor]) -> None:
    """Attacks differentiate through maps; checked against a finite difference in float64 on a smooth net."""
    net = make_net(architecture, "softplus").double()
    images, labels, ids = problem[0][:2].double(), problem[1][:2], torch.arange(2)
    method = find_method(name).given(**FEW.get(name, {}))
    weights = torch.randn(2, 1 if name == "grad_cam" else 3, 16, 16, dtype=torch.float64)

    def score(x: Tensor) -> Tensor:
        return (method.maps(net, MapRequest(x, labels, ids, keep_graph=True)) * weights).sum()

    inputs = images.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(score(inputs), inputs)
    direction = torch.randn_like(images)
    step = 1e-6
    moved = [score((images + sign * step * direction).requires_grad_(True)).detach() for sign in (1, -1)]
    difference = float(moved[0] - moved[1]) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(difference, rel=2e-3)
    assert abs(difference) > 0


@pytest.mark.parametrize("name", our_methods())
def test_a_net_in_train_mode_is_explained_in_eval_mode_and_left_as_it_was(
    name: str, problem: tuple[Tensor, Tensor]
) -> None:
    net = make_net("simple_cnn")
    method = find_method(name).given(**FEW.get(name, {}))
    expected = attribute(net, *problem, method)
    net.train()
    net.requires_grad_(True)
    assert_same(attribute(net, *problem, method), expected, 1e-6)
    assert net.training and all(parameter.requires_grad for parameter in net.parameters())


def test_what_a_method_does_not_support_is_refused(problem: tuple[Tensor, Tensor]) -> None:
    images, labels = problem
    linear = nn.Sequential(nn.Flatten(), nn.Linear(768, 10)).requires_grad_(False)
    for name, reason in (("grad_cam", "needs a convolution"), ("guided_backprop", "needs a net with activations")):
        with pytest.raises(BenchError, match=reason):
            attribute(linear, images, labels, find_method(name))
    odd = nn.Sequential(linear, nn.Softmax(1))
    with pytest.raises(BenchError, match="LRP has no rule for the operation 'softmax'"):
        attribute(odd, images, labels, find_method("lrp_epsilon"))
    small = nn.Linear(10, 10, bias=False).requires_grad_(False)
    nn.init.eye_(small.weight).mul_(1e-9)
    for net in (odd, nn.Sequential(odd, small)):
        with pytest.raises(BenchError, match="deeplift does not support this net"):
            attribute(net, images, labels, find_method("deeplift"))


@pytest.mark.parametrize("name", our_methods())
def test_wrong_channels_and_unknown_classes_are_refused(name: str, standard: nn.Module) -> None:
    with pytest.raises(BenchError, match=f"{name} failed on images of shape"):
        attribute(standard, torch.rand(2, 3, 28, 28), torch.tensor([0, 1]), find_method(name))
    with pytest.raises(BenchError, match=f"{name} failed on images of shape"):
        attribute(standard, torch.rand(2, 1, 28, 28), torch.tensor([0, 10]), find_method(name))


@pytest.mark.parametrize("name", our_methods())
def test_a_net_of_one_class_has_maps(name: str, problem: tuple[Tensor, Tensor]) -> None:
    net = plain_net(bias=True)
    net[-1] = nn.Linear(32, 1).requires_grad_(False)
    maps = attribute(net, problem[0], torch.zeros(4, dtype=torch.int64), find_method(name))
    assert maps.isfinite().all() and float(maps.abs().max()) > 0


def test_rounding_does_not_choose_among_the_equal_values_of_deeplifts_reference() -> None:
    """A black image is flat inside a net, so that every window of a max-pooling is a tie."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48, 3)).double()
    net = net.eval().requires_grad_(False)
    images, labels = torch.rand(3, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2])
    rounded = nn.Sequential(net[0], Shaken(), *net[1:])
    assert_same(*(attribute(one, images, labels, find_method("deeplift")) for one in (rounded, net)), 1e-6)


class Shaken(nn.Module):
    """Values with another rounding."""

    def forward(self, values: Tensor) -> Tensor:
        drawn = torch.rand(values.shape[1:], generator=torch.Generator().manual_seed(0), dtype=values.dtype)
        return values * (1 + 1e-12 * drawn)
