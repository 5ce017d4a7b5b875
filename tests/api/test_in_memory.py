"""Nets, images and labels of every kind that notebooks hold: a result, or one line that says what to do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import bench
from bench.core.errors import BenchError
from tests.api.calls import Few, attacked, attributed, evaluated, linear
from tests.conftest import Bench


@contextmanager
def default(setter: Callable[[Any], object], value: object, former: object) -> Iterator[None]:
    setter(value)
    try:
        yield
    finally:
        setter(former)


SURROUNDINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "gradients off": lambda: default(torch.set_grad_enabled, False, True),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "float64 by default": lambda: default(torch.set_default_dtype, torch.float64, torch.float32),
    "another device by default": lambda: default(torch.set_default_device, "meta", None),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_calls_answer_the_same_whatever_is_set_around_them(surroundings: str, few: Few, smallest_suite: Path) -> None:
    net = linear()
    expected = evaluated(net, smallest_suite), attacked(net, few), attributed(net, few)
    with SURROUNDINGS[surroundings]():
        found = evaluated(net, smallest_suite), attacked(net, few), attributed(net, few)
    assert found[0] == expected[0]
    assert torch.equal(found[1], expected[1])
    assert torch.equal(found[2], expected[2])
    assert not (found[1].is_inference() or found[2].is_inference())


def test_what_was_made_in_inference_mode_is_taken(few: Few, smallest_suite: Path) -> None:
    expected = evaluated(linear(), smallest_suite), attacked(linear(), few)
    with torch.inference_mode():
        net, images = linear(), few[0].clone()
        assert evaluated(net, smallest_suite) == expected[0]
    assert images.is_inference() and net[1].weight.is_inference()
    assert torch.equal(attacked(net, (images, few[1])), expected[1])


class Keeps(nn.Module):
    """A net that keeps what nobody can copy: a lock in a list, a file, and its last output with its graph."""

    def __init__(self) -> None:
        super().__init__()
        self.net = linear()
        self.held: list[Any] = [{"lock": threading.Lock()}, (value for value in "abc")]

    def forward(self, images: Tensor) -> Tensor:
        self.last = self.net(images)
        return self.last


def ran(net: nn.Module) -> nn.Module:
    net(torch.rand(2, 1, 28, 28))
    return net


def with_layer(change: Callable[[nn.Module], object]) -> nn.Module:
    net = linear()
    change(net[1])
    return ran(net)


def frozen() -> nn.Module:
    net = linear()
    net[1].requires_grad_(False)
    return net


class Exotic(Tensor):
    """A sub-class of tensors."""


def of_a_subclass() -> nn.Module:
    net = linear()
    net[1].weight = nn.Parameter(net[1].weight.detach().as_subclass(Exotic))
    return net


def compiled_inside() -> nn.Module:
    flatten, layer = linear()
    return nn.Sequential(flatten, torch.compile(layer))


def exported() -> nn.Module:
    shapes = {"input": {0: torch.export.Dim("count", min=1)}}
    return torch.export.export(linear(), (torch.rand(2, 1, 28, 28),), dynamic_shapes=shapes).module()


SAME: dict[str, Callable[[], nn.Module]] = {
    "weight_norm": lambda: with_layer(weight_norm),
    "weight_norm by parametrisation": lambda: with_layer(parametrizations.weight_norm),
    "pruned by nothing": lambda: with_layer(lambda layer: prune.identity(layer, "weight")),
    "keeps a lock and an activation": lambda: ran(Keeps()),
    "frozen": frozen,
    "of a sub-class": of_a_subclass,
    "DataParallel": lambda: nn.DataParallel(linear()),
    "compiled": lambda: torch.compile(linear()),
    "compiled inside": compiled_inside,
    "scripted": lambda: torch.jit.script(linear()),
    "traced": lambda: torch.jit.trace(linear(), torch.rand(2, 1, 28, 28)),
    "frozen script": lambda: torch.jit.freeze(torch.jit.script(linear().eval())),
    "exported": exported,
    "export in a sequence": lambda: nn.Sequential(nn.Identity(), exported()),
    "float64": lambda: linear().double(),
    "channels last": lambda: linear().to(memory_format=torch.channels_last),
}


@pytest.fixture(scope="module")
def of_linear(smallest_suite: Path) -> list[float]:
    return evaluated(linear(), smallest_suite)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", SAME)
def test_the_same_function_gives_the_same_answers_whatever_net_it_is(
    kind: str, few: Few, smallest_suite: Path, of_linear: list[float]
) -> None:
    net = SAME[kind]()
    assert evaluated(net, smallest_suite) == of_linear
    torch.testing.assert_close(attacked(net, few), attacked(linear(), few))
    torch.testing.assert_close(attributed(net, few), attributed(linear(), few))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: with_layer(spectral_norm), None),
        (lambda: with_layer(lambda layer: prune.l1_unstructured(layer, "weight", 0.5)), None),
        (lambda: linear().bfloat16(), None),
        (lambda: linear().half(), None),
        (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(10)), r"lazy layer.*net\(images\[:1\]\)"),
        (lambda: linear().to("meta"), "meta device, without values"),
        (lambda: torch.ao.quantization.quantize_dynamic(linear(), {nn.Linear}), "gradient"),
    ],
)
def test_other_nets_are_judged_or_refused_in_one_line(
    make: Callable[[], nn.Module], line: str | None, few: Few, smallest_suite: Path
) -> None:
    for call in (lambda net: evaluated(net, smallest_suite), lambda net: attacked(net, few)):
        if line is None:
            call(make())
        else:
            with pytest.raises(BenchError, match=line):
                call(make())


class Returns(nn.Module):
    """A net whose answer is wrapped in something."""

    def __init__(self, wrap: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.net, self.wrap = linear(), wrap

    def forward(self, images: Tensor) -> object:
        return self.wrap(self.net(images))


@pytest.mark.parametrize(
    ("net", "line"),
    [
        (Returns(lambda logits: (logits, None)), r"returns a tuple; wrap it in a net whose forward returns the logits"),
        (Returns(lambda logits: {"logits": logits}), r"returns a dict; wrap it"),
        (Returns(lambda logits: logits[:, :1]), r"must return logits of shape \(N, (K|10)\), it returns \(\d, 1\)"),
        (Returns(lambda logits: logits.log()), "NaN or infinite"),
        (lambda images: images, "the model is a function; pass a torch.nn.Module"),
        (None, "the model is a NoneType"),
    ],
)
def test_what_returns_no_logits_is_refused(net: Any, line: str, few: Few, smallest_suite: Path) -> None:
    for call in (
        lambda: evaluated(net, smallest_suite),
        lambda: attacked(net, few),
        lambda: attributed(net, few),
    ):
        with pytest.raises(BenchError, match=line):
            call()


def test_a_net_that_refuses_to_be_copied_is_refused_in_one_line(few: Few) -> None:
    class Stubborn(nn.Linear):
        def __deepcopy__(self, memo: object) -> None:
            raise TypeError("no copies")

    with pytest.raises(BenchError, match=r"cannot be copied \(TypeError: no copies\).*FILE.py:FUNCTION"):
        attacked(nn.Sequential(nn.Flatten(), Stubborn(784, 10)), few)


def test_a_copy_has_memory_of_its_own_unless_it_is_to_share_its_parameters() -> None:
    from bench.nets.intake import own_net

    def places(net: nn.Module) -> tuple[set[int], set[int]]:
        return {one.data_ptr() for one in net.parameters()}, {one.data_ptr() for one in net.buffers()}

    net = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(784, 10))
    parameters, buffers = places(net)
    assert not parameters & places(own_net(net))[0]
    shared = places(own_net(net, sharing=True))
    assert shared[0] == parameters and not shared[1] & buffers


def test_a_net_that_writes_to_its_weights_writes_to_those_of_the_copy(few: Few) -> None:
    class Adapts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = linear()

        def forward(self, images: Tensor) -> Tensor:
            with torch.no_grad():
                self.net[1].weight.mul_(0.9)
            return self.net(images)

    net = Adapts()
    attacked(net, few)
    assert torch.equal(net.net[1].weight, linear()[1].weight)


class Lambdas(nn.Module):
    """A net that holds functions of itself: its copy must not run the user's modules, which may be in another mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.dropout, self.net = nn.BatchNorm2d(1), nn.Dropout(0.9), linear()
        self.block = lambda images: self.dropout(self.norm(images))
        self.net.register_forward_pre_hook(lambda module, inputs: (self.block(*inputs),))

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)


def with_another_forward() -> nn.Module:
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.9), *linear())
    former = net.forward
    net.forward = lambda images: former(images)
    return net


@pytest.mark.parametrize("make", [Lambdas, with_another_forward])
def test_functions_that_a_net_holds_are_those_of_the_copy(
    make: Callable[[], nn.Module], few: Few, smallest_suite: Path
) -> None:
    net = make().train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    expected = nn.Sequential(nn.BatchNorm2d(1), *linear())
    assert evaluated(net, smallest_suite) == evaluated(expected, smallest_suite)
    torch.testing.assert_close(attacked(net, few), attacked(expected, few))
    torch.testing.assert_close(attributed(net, few), attributed(expected, few))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


IMAGES: dict[str, Callable[[Tensor], object]] = {
    "float64": lambda images: images.double(),
    "an array": lambda images: images.numpy(),
    "an array of float64, upside down twice": lambda images: images.numpy().astype("float64")[:, :, ::-1][:, :, ::-1],
    "a list of tensors": list,
    "lists": lambda images: images.tolist(),
    "channels last": lambda images: images.to(memory_format=torch.channels_last),
    "not contiguous": lambda images: images.repeat(1, 1, 1, 2)[..., :28],
    "asking for gradients": lambda images: images.clone().requires_grad_(True),
    "of a sub-class": lambda images: images.as_subclass(Exotic),
}
LABELS: dict[str, Callable[[Tensor], object]] = {
    "int32": lambda labels: labels.int(),
    "uint8": lambda labels: labels.to(torch.uint8),
    "a column": lambda labels: labels[:, None],
    "an array": lambda labels: labels.numpy()[::-1][::-1],
    "a list": lambda labels: labels.tolist(),
}


class Views(nn.Module):
    """A net that takes contiguous images alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = linear()[1]

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.view(len(images), -1))


@pytest.mark.parametrize("kind", [*IMAGES, *LABELS])
def test_images_and_labels_may_be_of_any_kind(kind: str, few: Few) -> None:
    images = IMAGES[kind](few[0]) if kind in IMAGES else few[0]
    labels = LABELS[kind](few[1]) if kind in LABELS else few[1]
    for call in (attacked, attributed):
        found = call(Views(), (images, labels))  # type: ignore[arg-type]
        torch.testing.assert_close(found, call(Views(), few), rtol=0, atol=0)
        assert type(found) is Tensor and not found.requires_grad


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda images, labels: (images, labels * 0 + 10), "labels are 10 to 10, but the net has the classes 0 to 9"),
        (lambda images, labels: (images, labels - 10), "the net has the classes 0 to 9"),
        (lambda images, labels: (images, labels.float()), r"labels are float32.*labels\.long\(\)"),
        (
            lambda images, labels: (images, nn.functional.one_hot(labels, 10)),
            r"labels \(N,\) the numbers of the classes",
        ),
        (lambda images, labels: (images[:0], labels[:0]), r"these are \(0, 1, 28, 28\)"),
        (lambda images, labels: ((images * 255).to(torch.uint8), labels), r"images are uint8.*images / 255"),
        (lambda images, labels: (images[0], labels[:1]), r"images must be \(N, C, H, W\)"),
        (lambda images, labels: ("no", labels), "images must be a dense tensor or an array of numbers"),
        (lambda images, labels: (images.to_sparse(), labels), "images must be a dense tensor or an array of numbers"),
        (lambda images, labels: (images, [None, 1, 2]), "labels must be a dense tensor or an array of numbers"),
        (lambda images, labels: (images * torch.nan, labels), r"pixels in \[0, 1\]"),
        (lambda images, labels: (images.expand(-1, 3, -1, -1), labels), "does not take images of shape"),
    ],
)
def test_images_and_labels_that_cannot_be_are_refused(
    change: Callable[[Tensor, Tensor], tuple[Any, Any]], line: str, few: Few
) -> None:
    for call in (attacked, attributed):
        with pytest.raises(BenchError, match=line):
            call(linear(), change(*few))


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda net, few, suite: attacked(net, few, eps=8), r"eps 8 in L-inf is larger than 1.*8 / 255"),
        (lambda net, few, suite: attacked(net, few, norm="l2", eps=28.1), "eps 28.1 in L2 is larger than 28"),
        (lambda net, few, suite: attacked(net, few, eps="8/255"), "'8/255' is not a number"),
        (lambda net, few, suite: attacked(net, few, eps=torch.nan), "must be positive"),
        (lambda net, few, suite: attacked(net, few, batch_size="auto"), "batch_size 'auto' is not a whole number"),
        (lambda net, few, suite: attacked(net, few, steps=2.5), r"steps 2\.5 is not a whole number"),
        (lambda net, few, suite: attacked(net, few, losses=["hinge"]), "unknown loss 'hinge'"),
        (lambda net, few, suite: attacked(net, few, losses=()), "name one or more of cross_entropy"),
        (lambda net, few, suite: attacked(net, few, losses="margin"), "name one or more of cross_entropy"),
        (lambda net, few, suite: attacked(net, few, seed="a"), "seed 'a' is not a whole number from 0 on"),
        (lambda net, few, suite: evaluated(net, suite, seed=1.5), r"seed 1\.5 is not a whole number from 0 on"),
        (
            lambda net, few, suite: evaluated(net, suite, dataset=few),
            "dataset is a tuple; pass its name",
        ),
        (lambda net, few, suite: evaluated(net, suite, precision=None), "precision is a NoneType; pass its name"),
        (lambda net, few, suite: evaluated(net, suite, data_dir=3), "3 is no path"),
        (lambda net, few, suite: bench.load_model(suite, mean=lambda: 1), "mean is a function; pass its numbers"),
        (lambda net, few, suite: attributed(net, few, batch_size=0), "batch_size 0 is not a whole number"),
        (lambda net, few, suite: attributed(net, few, method=net), "method is a Sequential; name one of the"),
        (lambda net, few, suite: evaluated(net, suite, batch_size="auto"), "batch_size 'auto' is not a whole number"),
        (lambda net, few, suite: evaluated(net, suite, mean=[0.5]), "mean has 1 values, std has 0; give both"),
        (lambda net, few, suite: attacked(net, few, mean="a", std="b"), "mean"),
    ],
)
def test_arguments_that_cannot_be_are_refused(
    call: Callable[[nn.Module, Few, Path], object], line: str, few: Few, smallest_suite: Path
) -> None:
    with pytest.raises(BenchError, match=line):
        call(linear(), few, smallest_suite)


def test_a_net_in_memory_can_be_normalised(few: Few, smallest_suite: Path) -> None:
    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = linear()

        def forward(self, images: Tensor) -> Tensor:
            return self.net((images - 0.3) / 0.25)

    given = {"mean": 0.3, "std": torch.tensor([0.25])}
    assert evaluated(linear(), smallest_suite, **given) == evaluated(Inside(), smallest_suite)
    torch.testing.assert_close(attacked(linear(), few, **given), attacked(Inside(), few))
    torch.testing.assert_close(attributed(linear(), few, **given), attributed(Inside(), few))


def test_the_outputs_of_a_net_in_memory_can_be_chosen(smallest_suite: Path) -> None:
    wide = linear(12)
    narrow = linear()
    with torch.no_grad():
        narrow[1].weight.copy_(wide[1].weight[2:])
        narrow[1].bias.copy_(wide[1].bias[2:])
    assert evaluated(wide, smallest_suite, classes=range(2, 12)) == evaluated(narrow, smallest_suite)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["DataParallel", "compiled inside", "scripted", "export in a sequence", "float64"])
def test_a_program_may_make_any_of_these_nets(
    kind: str, tmp_path: Path, smallest_suite: Path, of_linear: list[float]
) -> None:
    program = tmp_path / "net.py"
    program.write_text(f"from tests.api.test_in_memory import SAME\n\ndef make():\n    return SAME[{kind!r}]()\n")
    assert evaluated(f"{program}:make", smallest_suite) == of_linear


def test_the_command_line_refuses_a_programs_net_in_the_same_line(
    tmp_path: Path, smallest_suite: Path, bench: Bench
) -> None:
    program = tmp_path / "net.py"
    program.write_text(
        "from torch import nn\n\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))\n"
    )
    line = bench.refused("run", "--model", f"{program}:make", "--suite", smallest_suite, "--leaderboard", tmp_path)
    assert "lazy layer that has not seen an image" in line


def test_a_forgotten_normalisation_is_warned_of_and_a_good_net_is_not(
    standard: nn.Module, smallest_suite: Path
) -> None:
    from bench import evaluate

    class Unnormalised(nn.Module):
        """Trained elsewhere, on pixels that were divided by 20 after 0.9 was taken off."""

        def __init__(self) -> None:
            super().__init__()
            self.net = standard

        def forward(self, images: Tensor) -> Tensor:
            return self.net((images / 20 + 0.9).clamp(0, 1))

    def findings(**options: Any) -> set[str]:
        result = evaluate(Unnormalised(), smallest_suite, examples=20, device="cpu", **options)
        return {one.id for one in result.findings if one.severity == "warning"}

    assert "near_chance" in findings()
    assert "near_chance" not in findings(mean=0.9, std=0.05)
