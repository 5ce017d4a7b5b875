"""Nets that work in plain PyTorch work in every suite, whatever preparation does to their tensors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import bench
from bench.api.in_memory import entry_of_net
from bench.attributions.activations import has_relu
from bench.attributions.manipulations import TopK
from bench.attributions.registry import MapRequest, find_method
from bench.core.errors import BenchError
from bench.core.precision import float32_products
from bench.data import ImageDataset
from bench.nets.input_conv import InputConv2d
from bench.reporting.saliency.rows import PanelSettings, panel_rows
from bench.runs.plan import RunRequest, plan_runs
from bench.runs.ready import prepared_net
from tests.conftest import TINY_SUITE
from tests.protocols.attribution_suites import ALL

CPU = torch.device("cpu")
SUITES = {"cross_norm": TINY_SUITE, "attack": ALL["attack"]}


class Two(nn.Module):
    """Two convolutions and what `head` makes of them."""

    def __init__(self, head: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last, self.head = (
            nn.Conv2d(1, 4, 5, 2),
            nn.Conv2d(4, 4, 5, 2),
            nn.Linear(64, 10),
            head,
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.head(self.second(self.first(images).relu()).relu()))


def by_view(values: Tensor) -> Tensor:
    return values.view(-1, 64)


def flat(values: Tensor) -> Tensor:
    return values.flatten(1)


class OneByOne(Two):
    """Calls its convolutions on single images, (C, H, W)."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([super(OneByOne, self).forward(image) for image in images])


def prepared(net: nn.Module, data: ImageDataset) -> bool:
    ready = prepared_net(entry_of_net(net, "fashion_mnist", "net", None, adaptation={}), data, CPU)
    return any(isinstance(module, InputConv2d) for module in ready.modules())


def test_a_net_that_preparation_would_break_is_left_as_it_is(fashion_test: ImageDataset) -> None:
    assert prepared(Two(flat), fashion_test)
    assert not prepared(Two(by_view), fashion_test)


@pytest.mark.parametrize("name", SUITES)
def test_a_view_after_a_convolution_gives_the_records_of_a_flatten(name: str, tmp_path: Path) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text(SUITES[name])
    view, expected = (bench.evaluate(Two(head), suite, examples=2, device="cpu").records for head in (by_view, flat))
    pd.testing.assert_frame_equal(view, expected, rtol=1e-3, atol=1e-3)


def test_a_net_of_single_images_is_judged_explained_and_shown(fashion_test: ImageDataset) -> None:
    net = OneByOne(lambda values: values.reshape(64))
    images, labels = fashion_test.pixels(slice(0, 2)), fashion_test.labels[:2]
    assert bench.evaluate(net, "union", examples=2, device="cpu").value("clean_accuracy") >= 0
    expected = bench.attribute(Two(flat), images, labels)
    torch.testing.assert_close(bench.attribute(net, images, labels), expected)
    bench.attack(net, images, labels, norm="linf", eps=0.1, steps=2)
    rows, _ = panel_rows(
        entry_of_net(net, "fashion_mnist", "net", None, adaptation={}), fashion_test, [0],
        PanelSettings([find_method("gradient")], TopK(steps=1), 0.05, 0), device=CPU,
    )  # fmt: skip
    shown = torch.from_numpy(rows[0].maps[0].before).float()
    torch.testing.assert_close(shown / shown.abs().max(), expected[0, 0] / expected[0].abs().max())


class Steps(torch.autograd.Function):
    """The images themselves, with a gradient that cannot be differentiated."""

    @staticmethod
    def forward(ctx: object, images: Tensor) -> Tensor:
        return images.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


class Once(Two):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(Steps.apply(images)).square()


def test_a_missing_second_derivative_is_found_while_planning_where_a_suite_needs_it(tmp_path: Path) -> None:
    entry = entry_of_net(Once(flat), "fashion_mnist", "once", None, adaptation={})

    def plan(suite: str) -> None:
        plan_runs(RunRequest([], [suite], tmp_path / "board", examples=1, device="cpu", entries=[entry]))

    plan("union")
    with pytest.raises(BenchError, match=r"agreement_quick cannot judge model fashion_mnist/once: .* cannot look into"):
        plan("attribution_agreement_quick")
    for suite in ("attribution_stability_quick", "attribution_attack_quick", "insertion_quick"):
        with pytest.raises(
            BenchError, match=f"suite {suite} cannot judge model fashion_mnist/once: the second derivative"
        ):
            plan(suite)


@pytest.mark.parametrize("suite", ["agreement", "attack"])
def test_a_net_that_a_suites_methods_cannot_look_into_is_refused_while_planning(suite: str, tmp_path: Path) -> None:
    class Hidden(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, values: Tensor) -> Tensor:
            return values.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient.clone()

    entry = entry_of_net(Two(lambda values: flat(Hidden.apply(values))), "fashion_mnist", "hidden", None, adaptation={})
    path = tmp_path / "suite.toml"
    path.write_text(ALL[suite])
    with pytest.raises(
        BenchError, match=r"cannot judge model fashion_mnist/hidden: .* cannot look into all of this net"
    ):
        plan_runs(RunRequest([], [str(path)], tmp_path / "board", examples=1, device="cpu", entries=[entry]))
    assert not (tmp_path / "board").exists()


class Vision(nn.Module):
    """A small vision transformer on grey images, with a head that is not zero."""

    def __init__(self) -> None:
        super().__init__()
        models = pytest.importorskip("torchvision.models")
        torch.manual_seed(0)
        self.net = models.VisionTransformer(28, 14, 1, 2, 8, 16, num_classes=10)
        nn.init.normal_(self.net.heads.head.weight)

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images.expand(-1, 3, -1, -1))


@pytest.mark.parametrize("name", ALL)
def test_a_vision_transformer_goes_through_the_attribution_suites(name: str, tmp_path: Path) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text(ALL[name].replace(', { name = "grad_cam" }', ""))
    result = bench.evaluate(Vision(), suite, examples=1, device="cpu")
    assert not {"random_outputs", "batch_dependent", "non_finite_maps"} & {finding.id for finding in result.findings}
    if name == "stability":
        assert (result.records["hessian_change"] > 0).all()


def test_attentions_second_derivative_is_the_difference_of_its_first() -> None:
    net = Vision().eval().requires_grad_(False).double()
    images, direction = torch.rand(2, 1, 28, 28, dtype=torch.float64), torch.randn(2, 1, 28, 28, dtype=torch.float64)
    inputs, labels = images.clone().requires_grad_(True), torch.tensor([0, 1])
    gradient = find_method("gradient").maps(net, MapRequest(inputs, labels, labels, keep_graph=True))
    (product,) = torch.autograd.grad(gradient, inputs, direction)
    ahead, behind = (
        find_method("gradient").maps(net, MapRequest(images + step * direction, labels, labels))
        for step in (1e-5, -1e-5)
    )
    torch.testing.assert_close(product, (ahead - behind) / 2e-5, rtol=1e-4, atol=1e-7)


def test_a_transformer_answers_the_same_with_and_without_gradients_and_shows_its_activations() -> None:
    layer = nn.TransformerEncoderLayer(28, 2, 16, batch_first=True).eval().requires_grad_(False)
    net = nn.Sequential(nn.Flatten(1, 2), layer, nn.Flatten())
    images = torch.rand(3, 1, 28, 28)
    with float32_products():
        with torch.no_grad():
            plain = net(images)
        assert torch.equal(plain, net(images.clone().requires_grad_(True)))
        assert has_relu(net, images)
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_model_far_from_its_known_clean_accuracy_is_refused_before_anything_is_computed(
    tmp_path: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    def planned(expected: float) -> int:
        return len(plan_runs(RunRequest(["standard"], ["clean"], tmp_path, device="cpu", expect_clean=expected)))

    with torch.no_grad():
        right = standard(fashion_test.pixels(slice(0, 500))).argmax(1) == fashion_test.labels[:500]
    known = float(right.float().mean())
    assert planned(known) == planned(known - 0.03) == 1
    with pytest.raises(BenchError, match=rf"{known:.1%} of the first 500 images right, far from the expected 20.0%"):
        planned(0.2)
    with pytest.raises(BenchError, match="83 is no share of images"):
        planned(83)
    assert not list(tmp_path.iterdir())


def test_what_a_users_program_prints_does_not_mix_with_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\nprint('loaded')\ndef build():\n    print('built')\n    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))\n"
    )
    plan_runs(RunRequest([f"{tmp_path / 'net.py'}:build"], ["clean"], tmp_path / "board", device="cpu"))
    out, error = capsys.readouterr()
    assert not out and "loaded" in error and "built" in error
