"""captum's methods by name: what captum itself gives, in batches of any cut, on nets that stay as they are."""

from __future__ import annotations

import gc
import re
import resource
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import captum.attr as captum
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bench
from bench.attributions.adapters.captum import CLASSES, names
from bench.attributions.registry import attribute, find_method, methods_named, our_methods
from bench.core.errors import BenchError
from bench.core.keyed_random import keyed_normal
from bench.core.torch_state import random_numbers_of
from tests.attributions.test_methods import assert_same, make_net

FEW: dict[str, dict[str, Any]] = {
    "IntegratedGradients": {"n_steps": 4}, "Occlusion": {"sliding_window_shapes": [3, 4, 4], "strides": [3, 4, 4]},
    "FeatureAblation": {"feature_mask": 4}, "ShapleyValueSampling": {"feature_mask": 4, "n_samples": 3},
    "KernelShap": {"feature_mask": 4}, "Lime": {"feature_mask": 4}, "GradientShap": {"n_samples": 2},
}  # fmt: skip
"""Parameters that make the slow methods quick."""
IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([1, 2, 3, 4])


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(54, 6),
    ).eval().requires_grad_(False)  # fmt: skip


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def maps_of(name: str, net: nn.Module, **parameters: Any) -> Tensor:
    return attribute(net, IMAGES, LABELS, find_method(f"captum:{name}").given(**parameters))


MASK = torch.arange(4).view(2, 2).repeat_interleave(4, 0).repeat_interleave(4, 1).expand(1, 3, 8, 8)
WINDOW = (3, 4, 4)
CAPTUMS: dict[str, Callable[[nn.Module], Tensor]] = {
    "Saliency": lambda net: captum.Saliency(net).attribute(IMAGES, target=LABELS),
    "InputXGradient": lambda net: captum.InputXGradient(net).attribute(IMAGES, target=LABELS),
    "IntegratedGradients": lambda net: captum.IntegratedGradients(net).attribute(IMAGES, target=LABELS, n_steps=4),
    "GuidedBackprop": lambda net: captum.GuidedBackprop(net).attribute(IMAGES, target=LABELS),
    "Deconvolution": lambda net: captum.Deconvolution(net).attribute(IMAGES, target=LABELS),
    "DeepLift": lambda net: captum.DeepLift(net).attribute(IMAGES, target=LABELS),
    "DeepLiftShap": lambda net: captum.DeepLiftShap(net).attribute(
        IMAGES, torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 8, 8), target=LABELS
    ),
    "GuidedGradCam": lambda net: captum.GuidedGradCam(net, net[2]).attribute(IMAGES, target=LABELS),
    "Occlusion": lambda net: captum.Occlusion(net).attribute(IMAGES, WINDOW, strides=WINDOW, target=LABELS),
    "FeatureAblation": lambda net: captum.FeatureAblation(net).attribute(IMAGES, target=LABELS, feature_mask=MASK),
}


@pytest.mark.parametrize("name", CAPTUMS)
def test_maps_are_captums_own(name: str) -> None:
    assert_same(maps_of(name, small_net(), **FEW.get(name, {})), CAPTUMS[name](small_net()), 1e-5)


OURS = {
    "Saliency": ("gradient", {}, {"abs": False}),
    "InputXGradient": ("input_x_gradient", {}, {}),
    "IntegratedGradients": ("integrated_gradients", {"steps": 4}, {"n_steps": 4}),
    "GuidedBackprop": ("guided_backprop", {}, {}),
    "Deconvolution": ("deconvolution", {}, {}),
    "DeepLift": ("deeplift", {}, {}),
    "LRP": ("lrp_epsilon", {}, {}),
}
"""captum's name, ours, ours' parameters and captum's, for the same map."""
BOTH_RIGHT = {"small_cnn": set(OURS), "simple_cnn": set(OURS) - {"DeepLift"}, "wide_resnet": set(OURS) - {"LRP"}}


@pytest.mark.parametrize("architecture", BOTH_RIGHT)
def test_ours_and_captums_agree_where_both_are_right_and_captum_is_doubted_elsewhere(architecture: str) -> None:
    net = make_net(architecture, size=16)
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    for name, (our_name, ours, theirs) in OURS.items():
        method = find_method(f"captum:{name}").given(**theirs)
        found = attribute(net, images, LABELS[:3], method)
        expected = attribute(net, images, LABELS[:3], find_method(our_name).given(**ours))
        doubts = [finding for finding in method.findings(net, images[:1]) if finding.severity == "warning"]
        if name in BOTH_RIGHT[architecture]:
            assert_same(found, expected, 5e-3)
            assert not doubts
        else:
            assert float((found - expected).abs().max()) > 0.1 * float(expected.abs().max())
            assert doubts


def test_kernel_shap_and_shapley_sampling_find_the_shapley_values_of_a_linear_net() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 6)).eval().requires_grad_(False)
    for name, samples in (("ShapleyValueSampling", 2), ("KernelShap", 60)):
        found = maps_of(name, net, feature_mask=4, n_samples=samples)
        parts = (IMAGES * net[1].weight[LABELS].view(4, 3, 8, 8)).sum(1, keepdim=True)
        expected = F.avg_pool2d(parts, 4).mul(16).repeat_interleave(4, 2).repeat_interleave(4, 3).expand_as(IMAGES)
        assert_same(found, expected, 1e-3)


def test_the_noise_tunnels_maps_are_captums_for_the_same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    net, ids = small_net(), torch.arange(4)
    keys = [torch.full_like(ids, sample) for sample in range(3)]
    noise = torch.stack([keyed_normal(0, "NoiseTunnel", ids, (3, 8, 8), extra=key) for key in keys], 1).flatten(0, 1)
    monkeypatch.setattr(torch, "normal", lambda _, stdevs: stdevs * noise)
    for kind in ("smoothgrad", "smoothgrad_sq", "vargrad"):
        found = maps_of("NoiseTunnel:InputXGradient", net, nt_samples=3, stdevs=0.3, nt_type=kind)
        tunnel = captum.NoiseTunnel(captum.InputXGradient(net))
        expected = tunnel.attribute(IMAGES, nt_type=kind, nt_samples=3, stdevs=0.3, target=LABELS)
        assert_same(found, expected, 1e-4)


def test_gradient_shaps_maps_are_captums_in_the_mean() -> None:
    net = small_net()
    found = maps_of("GradientShap", net, n_samples=400, stdevs=0.1, baselines=[0.0, 1.0])
    greys = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 8, 8)
    with random_numbers_of(
        torch.device("cpu"), "captum"
    ):  # numpy's too, from which captum takes where on the way it is
        expected = captum.GradientShap(net).attribute(IMAGES, greys, n_samples=400, stdevs=0.1, target=LABELS)
    assert (torch.cosine_similarity(found.flatten(1), expected.flatten(1)) > 0.95).all()


@pytest.mark.parametrize("name", [*CLASSES, "NoiseTunnel:Saliency", "NoiseTunnel:Lime"])
def test_maps_do_not_depend_on_the_batch_and_the_net_stays_as_it_was(name: str) -> None:
    net = small_net()
    method = find_method(f"captum:{name}").given(**FEW.get(name.rpartition(":")[2], {}))
    before, attributes = net(IMAGES), [set(vars(module)) for module in net.modules()]
    whole = attribute(net, IMAGES, LABELS, method)
    chosen = torch.tensor([3, 1])
    part = attribute(net, IMAGES[chosen], LABELS[chosen], method, example_ids=chosen, batch_size=1)
    assert_same(part, whole[chosen], 1e-4)
    assert torch.equal(net(IMAGES), before) and [set(vars(module)) for module in net.modules()] == attributes
    assert not any(module._forward_hooks or module._backward_hooks for module in net.modules())


def tensors_alive() -> int:
    gc.collect()
    return sum(type(one) is Tensor for one in gc.get_objects())


def call_often(times: int) -> None:
    """Every method that works with hooks or graphs, ours too, on one image."""
    net = small_net()
    chosen = [
        *our_methods().values(),
        *(find_method(f"captum:{name}") for name in OURS),
        find_method("captum:GuidedGradCam"),
    ]
    for method in chosen:
        few = {
            "integrated_gradients": {"steps": 2},
            "smoothgrad": {"samples": 2},
            "captum:IntegratedGradients": {"n_steps": 2},
        }
        for _ in range(times):
            attribute(net, IMAGES[:1], LABELS[:1], method.given(**few.get(method.name, {})))


def test_memory_does_not_grow_with_calls() -> None:
    call_often(1)
    before = tensors_alive()
    call_often(3)
    assert tensors_alive() <= before


@pytest.mark.slow
def test_memory_does_not_grow_over_300_calls() -> None:
    call_often(20)
    before, resident = tensors_alive(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call_often(300)
    assert tensors_alive() <= before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss <= 1.05 * resident


class Reused(nn.Module):
    """One in-place ReLU for both places, and a function for a third."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.act = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.ReLU(inplace=True)
        self.linear = nn.Linear(96, 6)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(F.softplus(self.act(self.second(self.act(self.first(images))))).flatten(1))


DOUBTS = {
    "GuidedBackprop": "1 activations keep their plain derivative (softplus)",
    "DeepLift": "1 activations keep their plain derivative (softplus); act runs 2 times",
    "LRP": "1 activations keep their plain derivative (softplus); act runs 2 times",
}


@pytest.mark.parametrize("name", DOUBTS)
def test_what_captum_is_known_to_get_wrong_on_a_net_is_found(name: str) -> None:
    (finding,) = find_method(f"captum:{name}").findings(Reused().eval().requires_grad_(False), IMAGES[:1])
    assert (
        finding.severity == "warning" and finding.evidence == f"captum:{name} is known to be wrong here: {DOUBTS[name]}"
    )


def test_activations_in_place_are_no_obstacle() -> None:
    inside = small_net()
    inside[1], inside[3] = nn.ReLU(inplace=True), nn.ReLU(inplace=True)
    for name in ("GuidedBackprop", "DeepLift"):
        assert_same(maps_of(name, inside), maps_of(name, small_net()), 1e-6)
    assert inside[1].inplace


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "an unknown class": ("Oclusion", {}, "unknown attribution method 'captum:Oclusion'; did you mean captum:Occlusion"),
    "a tunnel around nothing": ("NoiseTunnel:Salience", {}, "did you mean captum:NoiseTunnel:Saliency"),
    "an unknown parameter": ("Occlusion", {"stride": [1]}, "captum:Occlusion 'stride'; did you mean strides"),
    "one of another class": ("Saliency", {"n_steps": 3}, "unknown parameter of attribution method captum:Saliency"),
    "what decides memory": ("KernelShap", {"perturbations_per_eval": 9}, "unknown parameter"),
    "another type": ("IntegratedGradients", {"n_steps": "many"}, "captum:IntegratedGradients: n_steps"),
    "no window": ("Occlusion", {"sliding_window_shapes": [3, 9, 9]}, "captum:Occlusion failed: "),
    "a window without channels": ("Occlusion", {"sliding_window_shapes": [4, 4]}, "channels, rows and columns; these are 2"),
    "an unknown layer": ("GuidedGradCam", {"layer": "4a"}, "unknown layer of this net '4a'; did you mean 4?"),
    "a layer without a grid": ("GuidedGradCam", {"layer": "4"}, "cannot tell where on the image"),
}  # fmt: skip


def test_captums_name_without_its_prefix_is_told_with_it() -> None:
    with pytest.raises(BenchError, match="unknown attribution method 'Occlusion'; captum's is called captum:Occlusion"):
        find_method("Occlusion")


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line(case: str) -> None:
    name, parameters, line = BAD[case]
    with pytest.raises(BenchError) as caught:
        maps_of(name, small_net(), **parameters)
    assert line in str(caught.value) and "\n" not in str(caught.value) and ".." not in str(caught.value)


def test_a_layer_that_lrp_has_no_rule_for_is_named() -> None:
    net = nn.Sequential(*small_net()[:1], nn.Softplus(), *small_net()[2:])
    with pytest.raises(BenchError, match="captum's LRP has no rule for the Softplus '1' of this net; use lrp_epsilon"):
        maps_of("LRP", net)


def test_the_layer_that_was_taken_is_said_and_another_can_be_named() -> None:
    net = small_net()
    (finding,) = find_method("captum:GuidedGradCam").findings(net, IMAGES[:1])
    assert "looks at the last convolution, 2" in finding.evidence
    assert not find_method("captum:GuidedGradCam").given(layer="0").findings(net, IMAGES[:1])
    assert_same(maps_of("GuidedGradCam", net, layer="2"), maps_of("GuidedGradCam", net), 1e-6)
    assert not torch.allclose(maps_of("GuidedGradCam", net, layer="0"), maps_of("GuidedGradCam", net))


def test_captum_is_imported_only_when_it_is_named() -> None:
    at_start = re.compile(r"^(from|import) (captum|sklearn)", re.MULTILINE)
    assert not [path for path in Path(bench.__file__).parent.rglob("*.py") if at_start.search(path.read_text())]


def test_wildcards_stand_for_captums_names_and_all_does_not() -> None:
    assert [method.name for method in methods_named(["captum:Deep*"])] == ["captum:DeepLift", "captum:DeepLiftShap"]
    assert len(names()) == 2 * len(CLASSES) + 1
    assert not any(method.name.startswith("captum:") for method in methods_named(["all"]))
