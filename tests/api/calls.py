"""The three calls that take a net in memory, in their smallest form, as one number or tensor each."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import bench
from bench.data import load_split

Few = tuple[Tensor, Tensor]


class Exotic(Tensor):
    """A sub-class of tensors."""


@cache
def _towards_the_classes() -> Tensor:
    test = load_split("fashion_mnist", "test")
    images, labels = test.pixels(slice(0, 3)), test.labels[:3]
    return (nn.functional.one_hot(labels, 10).float() - 0.1).T @ images.flatten(1)


def linear(classes: int = 10) -> nn.Sequential:
    """A linear net that is right about the first three images; as many outputs as `classes`, the last ten count."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, classes))
    with torch.no_grad():
        net[1].weight[-10:] = _towards_the_classes()
        net[1].bias.copy_(torch.linspace(-1, 1, classes))
    return net


def evaluated(net: Any, suite: Path, **options: Any) -> list[float]:
    return list(bench.evaluate(net, suite, examples=2, device="cpu", **options).frame["value"])


def attacked(net: Any, few: Few, **options: Any) -> Tensor:
    return bench.attack(net, *few, **{"norm": "linf", "eps": 0.05, "steps": 1, **options}).images


def attributed(net: Any, few: Few, **options: Any) -> Tensor:
    return bench.attribute(net, *few, **options)
