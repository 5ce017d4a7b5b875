"""What a training step of a recipe costs, in seconds and in memory kept for its backward pass; this machine's pace."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.attacks.pgd import attacked_model
from bench.core.memory import keep_freed_memory, limit_openmp_spinning
from bench.data import DATASETS, ImageDataset
from bench.nets import build_net
from bench.nets.preparation import prepare_net
from bench.training.methods import Batch
from bench.training.recipe import Recipe

BATCH_SIZE = 128
_REFERENCE_SECONDS = 0.045
"""What `speed` times on two idle cores of the machine on which the studies' seconds were taken."""


@dataclass(frozen=True, slots=True)
class StepCost:
    """Of one recipe.

    Attributes:
        seconds: a step of loss and gradient, without the optimiser, one a round.
        kept_bytes: the most that autograd keeps for backward passes at any time, parameters not counted.
    """

    seconds: list[float]
    kept_bytes: int


def step_costs(recipes: Mapping[str, Recipe], data: ImageDataset, rounds: int) -> dict[str, StepCost]:
    """Time one step of each recipe in turn, round by round, so that a change of the machine's speed hits all alike.

    Args:
        data: its first 128 images are the batch, its name says the recipes' net.
    """
    keep_freed_memory()
    facts = DATASETS[data.name]
    images, labels = data.pixels(slice(0, BATCH_SIZE)), data.labels[:BATCH_SIZE]
    targets = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    std = torch.tensor(facts.std).view(1, -1, 1, 1)
    batch = Batch(images, labels, targets, std, generator=torch.Generator().manual_seed(0))
    nets = {}
    for name, recipe in recipes.items():
        torch.manual_seed(0)
        net = build_net(recipe.schedule.architecture, recipe.architecture_parameters(facts))
        nets[name] = prepare_net(net)
    kept = {name: _kept_bytes(nets[name], recipe, batch) for name, recipe in recipes.items()}
    seconds: dict[str, list[float]] = {name: [] for name in recipes}
    for _ in range(rounds):
        for name, recipe in recipes.items():
            began = time.perf_counter()
            _step(nets[name], recipe, batch)
            seconds[name].append(time.perf_counter() - began)
    return {name: StepCost(seconds[name], kept[name]) for name in recipes}


def _step(net: nn.Module, recipe: Recipe, batch: Batch) -> None:
    loss = torch.stack(list(recipe.method.loss_terms(net, batch).values())).sum()
    torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)


def _kept_bytes(net: nn.Module, recipe: Recipe, batch: Batch) -> int:
    kept = _Kept({parameter.untyped_storage().data_ptr() for parameter in net.parameters()})
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: _Held(tensor, kept), lambda held: held.tensor):
        _step(net, recipe, batch)
    return kept.peak


class _Kept:
    """Bytes that autograd keeps, each storage once; `own` are addresses of storages that do not count."""

    def __init__(self, own: set[int]) -> None:
        self.own, self.times, self.now, self.peak = own, Counter[int](), 0, 0

    def change(self, tensor: Tensor, by: int) -> None:
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        before = self.times[address]
        self.times[address] = before + by
        if address not in self.own and (before == 0 or before + by == 0):
            self.now += by * storage.nbytes()
            self.peak = max(self.peak, self.now)


class _Held:
    """A tensor that a graph keeps until it lets go of this."""

    def __init__(self, tensor: Tensor, kept: _Kept) -> None:
        self.tensor, self.kept = tensor, kept
        kept.change(tensor, 1)

    def __del__(self) -> None:
        self.kept.change(self.tensor, -1)


@functools.cache
def speed() -> float:
    """How many times slower this machine is than the idle reference; measured in about a second, once a process."""
    limit_openmp_spinning()
    net = build_net("small_cnn", DATASETS["fashion_mnist"].net_parameters)
    images = torch.rand(256, 1, 28, 28, requires_grad=True)
    times = []
    with attacked_model(net):
        for _ in range(15):
            began = time.perf_counter()
            torch.autograd.grad(net(images).sum(), images)
            times.append(time.perf_counter() - began)
    return max(0.25, sorted(times)[len(times) // 2] / _REFERENCE_SECONDS)
