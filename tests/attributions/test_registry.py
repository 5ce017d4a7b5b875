"""The contract of attribution methods: what others' functions get, may return, and are refused for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.attacks.user_files import UserFile
from bench.attributions.manipulate import make_goal, manipulate
from bench.attributions.manipulations import TopK
from bench.attributions.registry import (
    AttributionMethod,
    MapRequest,
    attribute,
    find_method,
    method_of,
    methods_named,
    our_methods,
    register_attribution,
)
from bench.core.errors import BenchError

NET = nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.Softplus(), nn.Linear(5, 3)).eval().requires_grad_(False)
IMAGES, LABELS = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0])


def maps_of(function: Callable[..., Any], **parameters: Any) -> Tensor:
    return attribute(NET, IMAGES, LABELS, method_of(function, "mine").given(**parameters), seed=3, batch_size=2)


def plain(model: nn.Module, images: Tensor, targets: Tensor, *, scale: float = 1.0) -> Tensor:
    logits = model(images).gather(1, targets[:, None]).sum()
    return scale * torch.autograd.grad(logits, images)[0]


def test_our_methods_stay_in_their_order() -> None:
    assert list(our_methods()) == [
        "gradient", "input_x_gradient", "integrated_gradients", "smoothgrad", "guided_backprop", "deconvolution",
        "lrp_epsilon", "lrp_epsilon_plus", "lrp_alpha2_beta1", "deeplift", "grad_cam",
    ]  # fmt: skip
    assert [name for name, method in our_methods().items() if method.differentiable] == [
        "gradient", "input_x_gradient", "integrated_gradients", "smoothgrad", "guided_backprop", "lrp_epsilon",
        "lrp_epsilon_plus", "lrp_alpha2_beta1", "grad_cam",
    ]  # fmt: skip


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.layer(images).relu().sum((2, 3))
        return logits, logits


@pytest.mark.parametrize("name", [*our_methods(), "grad_cam at layer"])
def test_a_net_that_returns_no_tensor_is_refused_by_every_method_of_ours(name: str) -> None:
    method = find_method(name.partition(" ")[0]).given(**{"layer": "layer"} if "layer" in name else {})
    with pytest.raises(BenchError, match=r"the net returns a tuple; wrap it in a net whose forward returns the logits"):
        attribute(TwoHeads().eval().requires_grad_(False), IMAGES, LABELS, method)


def test_a_plain_function_gets_images_that_require_gradients_and_its_parameters() -> None:
    expected = attribute(NET, IMAGES, LABELS, find_method("gradient"))
    torch.testing.assert_close(maps_of(plain), expected)
    torch.testing.assert_close(maps_of(plain, scale=2.0), 2 * expected)


def test_a_function_gets_ids_and_seed_where_it_asks_for_them() -> None:
    def told(model: nn.Module, images: Tensor, targets: Tensor, *, ids: Tensor, seed: int) -> Tensor:
        return (10 * seed + ids)[:, None, None, None] + torch.zeros_like(images)

    assert maps_of(told)[:, 0, 0, 0].tolist() == [30.0, 31.0, 32.0, 33.0]


def test_a_function_that_draws_from_torch_draws_the_same_again_and_leaves_the_generator_alone() -> None:
    def noisy(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        return torch.rand_like(images)

    before = torch.get_rng_state()
    assert torch.equal(maps_of(noisy), maps_of(noisy))
    assert torch.equal(torch.get_rng_state(), before)


def test_what_a_function_writes_into_the_images_stays_there() -> None:
    def greedy(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        with torch.no_grad():
            images.fill_(7.0)
        return images

    kept = IMAGES.clone()
    assert (maps_of(greedy) == 7.0).all() and torch.equal(IMAGES, kept)


def raising(*_: Any) -> Tensor:
    raise ZeroDivisionError("nothing left")


BAD: dict[str, tuple[Callable[..., Any], str]] = {
    "an exception": (raising, "attribution method mine failed: ZeroDivisionError: nothing left."),
    "a process that is ended": (lambda *_: exit(0), "attribution method mine failed: SystemExit: 0."),
    "no tensor": (lambda *_: None, "returned a NoneType; it must return a tensor of floating-point numbers."),
    "whole numbers": (lambda model, x, y: x.long(), "returned a tensor of torch.int64; it must"),
    "one map of all images": (lambda model, x, y: x.mean(0), r"maps of shape \(3, 4, 4\) for images of shape \(2, 3"),
    "two channels": (lambda model, x, y: x[:, :2], r"maps of shape \(2, 2, 4, 4\) for images"),
    "NaN": (lambda model, x, y: x / 0 * 0, "returned NaN or infinite maps of 2 of 2 images."),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_function_gets_one_line_in_its_name(case: str) -> None:
    function, line = BAD[case]
    with pytest.raises(BenchError, match=line) as caught:
        maps_of(function)
    assert "\n" not in str(caught.value)


def test_an_unknown_parameter_and_a_thing_that_is_no_function_are_refused() -> None:
    with pytest.raises(BenchError, match="unknown parameter of attribution method mine 'sacle'; did you mean scale"):
        maps_of(plain, sacle=2.0)
    with pytest.raises(BenchError, match="attribution method mine is a int, not a function"):
        method_of(3, "mine")


def test_one_channel_is_enough_and_other_floats_become_the_images() -> None:
    found = maps_of(lambda model, images, targets: images.mean(1, keepdim=True).double())
    assert found.shape == (4, 1, 4, 4) and found.dtype == torch.float32


def attacked(method: AttributionMethod) -> Tensor:
    attack = TopK(steps=3)
    maps = attribute(NET, IMAGES, LABELS, find_method("gradient")).abs().sum(1)
    goal = make_goal(attack, maps, NET(IMAGES), maps, top_share=0.1)
    request = MapRequest(IMAGES, LABELS, torch.arange(4))
    return manipulate(NET, request, method, attack, goal=goal, eps=0.05, check_every=1).images


def test_only_a_method_that_is_registered_as_differentiable_is_attacked_itself() -> None:
    @register_attribution("ignored", differentiable=True)
    def smooth(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
        logits = model(images).gather(1, targets[:, None]).sum()
        return torch.autograd.grad(logits, images, create_graph=True)[0]

    assert torch.equal(attacked(method_of(smooth, "mine")), attacked(find_method("gradient")))
    with pytest.raises(BenchError, match="mine cannot be differentiated, so it cannot be attacked; attack gradient"):
        attacked(method_of(plain, "mine"))


def test_logits_fall_out_where_the_function_has_them_and_are_computed_where_it_has_not() -> None:
    request = MapRequest(IMAGES, LABELS, torch.arange(4))
    for method in (method_of(plain, "mine"), method_of(lambda model, x, y: 0.5 * x, "mine"), find_method("smoothgrad")):
        torch.testing.assert_close(method.maps_and_logits(NET, request)[1].detach(), NET(IMAGES))


def test_a_function_of_a_file_runs_only_once_the_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "maps.py"
    path.write_text("def half(model, images, targets, *, share=0.5):\n    return share * images\n")
    with pytest.raises(BenchError, match=r"maps\.py:half is code of a file, which runs only") as caught:
        find_method("maps.py:half")
    assert caught.value.named_options() == ("program",)
    method = find_method("elsewhere/maps.py:half", UserFile.read(path))
    assert method.name == "maps.py:half" and not method.differentiable
    assert torch.equal(attribute(NET, IMAGES, LABELS, method.given(share=0.25)), 0.25 * IMAGES)
    assert [one.name for one in methods_named([f"{path}:half", "grad*", "gradient"])] == [
        "maps.py:half", "gradient", "grad_cam",
    ]  # fmt: skip
