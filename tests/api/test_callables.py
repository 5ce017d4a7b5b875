"""Attacks and attribution methods as callables or by name, and nets that want other images or classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bench
from bench.core.errors import BenchError
from bench.data import ImageDataset
from tests.api.calls import Few, attacked, attributed, evaluated, linear


def one_step(model: nn.Module, images: Tensor, labels: Tensor, *, eps: Tensor, share: float = 1.0) -> Tensor:
    """FGSM as a user would write it."""
    images = images.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(images), labels), images)
    return (images + share * eps.view(-1, 1, 1, 1).float() * gradient.sign()).clamp(0, 1).detach()


@pytest.mark.parametrize("attack", ["apgd-t", "sweep", "torchattacks:PGD", one_step])
def test_an_attack_by_name_or_as_a_callable_returns_verified_images(attack: Any, few: Few, standard: nn.Module) -> None:
    found = bench.attack(standard, *few, norm="linf", eps=0.5, attack=attack, batch_size="auto")
    assert bool(found.broken.any()) and torch.equal(found.broken, found.predictions != few[1])
    assert torch.equal(standard(found.images).argmax(1), found.predictions)
    far = (found.images - few[0]).double().flatten(1).norm(torch.inf, dim=1)
    torch.testing.assert_close(far, found.distances, rtol=1e-6, atol=1e-9)
    assert 0 < float(far.max()) <= 0.5 * (1 + 1e-6)


def test_a_callables_keywords_are_its_parameters(few: Few) -> None:
    found = bench.attack(linear(), *few, norm="linf", eps=0.5, attack=one_step, share=0.75)
    assert float(found.distances.max()) == pytest.approx(0.375)
    with pytest.raises(BenchError, match="unknown parameter of attack one_step 'shar'; did you mean share"):
        bench.attack(linear(), *few, norm="linf", eps=0.5, attack=one_step, shar=0.75)


def test_an_object_of_captums_explains_the_net_that_is_passed(few: Few) -> None:
    """With normalisation too, which the net that it was made with lacks."""
    from captum.attr import Occlusion

    net, other = linear(), nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    window: dict[str, Any] = {"sliding_window_shapes": (1, 14, 14), "strides": (1, 14, 14)}
    found = attributed(net, few, method=Occlusion(other), mean=[0.5], std=[0.5], **window)
    expected = Occlusion(lambda images: net((images - 0.5) / 0.5)).attribute(few[0], target=few[1], **window)
    torch.testing.assert_close(found, expected.float())
    with pytest.raises(BenchError, match="Occlusion needs the parameter sliding_window_shapes, which is not given"):
        attributed(net, few, method=Occlusion(net))


def test_size_and_classes_are_adapted_in_every_call(few: Few, smallest_suite: Path, fashion_test: ImageDataset) -> None:
    """A net of larger images whose outputs come in the opposite order."""
    net = nn.Sequential(nn.AvgPool2d(2), linear())
    with torch.no_grad():
        net[1][1].weight.copy_(net[1][1].weight.flip(0)), net[1][1].bias.copy_(net[1][1].bias.flip(0))
    adapted: dict[str, Any] = {"input_size": 56, "classes": range(9, -1, -1)}
    names = {name: 9 - place for place, name in enumerate(fashion_test.class_names)}
    assert evaluated(net, smallest_suite, **adapted) == evaluated(net, smallest_suite, input_size=56, label_map=names)
    assert evaluated(net, smallest_suite, **adapted)[0] == evaluated(linear(), smallest_suite, batch_size="auto")[0]
    assert attacked(net, few, **adapted).shape == attributed(net, few, **adapted).shape == few[0].shape
    with pytest.raises(BenchError, match="unknown class of fashion_mnist in the label map of this call 'Hat'"):
        evaluated(net, smallest_suite, label_map={"Hat": 0})


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda net, few: attacked(net, few, batch_size="many"), "batch_size 'many' is not a whole number"),
        (lambda net, few: attacked(net, few, attack=3), "attack int is a int, not a function"),
        (lambda net, few: attacked(net, few, attack="sigma-zero", steps=None, norm="l2"), "does not work in L2"),
        (lambda net, few: attacked(net, few, stepsize=3), "unknown parameter of PGD 'stepsize'; did you mean steps"),
        (lambda net, few: attributed(net, few, method=7), "method is a int; give a function"),
        (
            lambda net, few: attributed(net, few, method=lambda net: net),
            "attribution method <lambda> failed: TypeError",
        ),
        (lambda net, few: bench.list_models(3), "pattern is a int"),
        (lambda net, few: bench.list_models(exclude=None), "exclude is a NoneType"),
        (lambda net, few: bench.evaluate("lga", "cross_norm", cpus_per_worker="a"), "cpus_per_worker 'a' is not"),
        (lambda net, few: bench.evaluate("lga", "cross_norm", gpus_per_worker="a"), "gpus_per_worker 'a' is not"),
    ],
)
def test_arguments_of_a_wrong_type_are_refused_in_one_line(
    call: Callable[[nn.Module, Few], object], line: str, few: Few
) -> None:
    with pytest.raises(BenchError, match=line):
        call(linear(), few)
