"""Images, labels and arguments of every kind that notebooks hold: a result, or one line that says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bench
from bench.core.errors import BenchError
from tests.api.calls import Exotic, Few, attacked, attributed, evaluated, linear


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
        (lambda net, few, suite: attacked(net, few, eps="8/"), "8/"),
        (lambda net, few, suite: attacked(net, few, eps=torch.nan), "must be positive"),
        (lambda net, few, suite: attacked(net, few, batch_size="much"), "batch_size 'much' is not a whole number"),
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
        (lambda net, few, suite: bench.load_model(suite, mean=lambda: 1), "mean is a function; pass a list"),
        (lambda net, few, suite: evaluated("standard", suite, exmples=8), "'exmples'; did you mean examples"),
        (lambda net, few, suite: evaluated(net, suite, sed=8), "'sed'; did you mean seed"),
        (lambda net, few, suite: bench.load_model("standard", datset="mnist"), "'datset'; did you mean dataset"),
        (lambda net, few, suite: attributed(net, few, batch_size=0), "batch_size 0 is not a whole number"),
        (
            lambda net, few, suite: attributed(net, few, method=net),
            "method is a Sequential; give a function, or the name",
        ),
        (lambda net, few, suite: evaluated(net, suite, batch_size="much"), "batch_size 'much' is not a whole number"),
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
