"""Seconds a training step of each recipe, relative to plain cross-entropy on the same net and batch, paired in one run.

    python benchmarks/recipe_cost.py --rounds 15

Each round times one step of every recipe in turn, so that a change of the machine's speed hits all alike; printed are
the medians of the per-round ratios. Softplus recipes are compared with plain cross-entropy on the softplus net.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
import typer
from torch import nn

from bench.core.memory import keep_freed_memory
from bench.data import DATASETS, load_split
from bench.nets import build_net
from bench.training import Recipe, list_recipes, make_recipe
from bench.training.methods import Batch

BATCH_SIZE = 128


def make_step(recipe: Recipe, batch: Batch) -> tuple[nn.Module, Recipe, Batch]:
    torch.manual_seed(0)
    net = build_net(recipe.schedule.architecture, recipe.architecture_parameters(DATASETS["fashion_mnist"]))
    return net.to(memory_format=torch.channels_last), recipe, batch


def run_step(net: nn.Module, recipe: Recipe, batch: Batch) -> float:
    began = time.perf_counter()
    loss = torch.stack(list(recipe.method.loss_terms(net, batch).values())).sum()
    torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)
    return time.perf_counter() - began


def main(rounds: int = 15) -> None:
    keep_freed_memory()
    data = load_split("fashion_mnist", "test")
    images, labels = data.pixels(slice(0, BATCH_SIZE)), data.labels[:BATCH_SIZE]
    std = torch.tensor(DATASETS["fashion_mnist"].std).view(1, -1, 1, 1)
    batch = Batch(images, labels, torch.randn_like(images), std, generator=torch.Generator().manual_seed(0))
    names = [template.name for template in list_recipes() if template.name != "standard"]
    steps = {name: make_step(make_recipe(name, "fashion_mnist"), batch) for name in names}
    names.append("lga, detached")
    steps[names[-1]] = make_step(make_recipe("lga", "fashion_mnist", {"detach_reference": True}), batch)
    for activation in ("relu", "softplus"):
        steps[activation] = make_step(make_recipe("standard", "fashion_mnist", {"activation": activation}), batch)
    for step in steps.values():
        run_step(*step)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            seconds[name].append(run_step(*step))
    sys.stdout.write(f"{'recipe':20}{'ms a step':>10}{'ratio':>8}   relative to plain cross-entropy on\n")
    for name in names:
        baseline = steps[name][1].schedule.activation
        ratios = [own / plain for own, plain in zip(seconds[name], seconds[baseline], strict=True)]
        own = 1e3 * statistics.median(seconds[name])
        sys.stdout.write(f"{name:20}{own:10.1f}{statistics.median(ratios):8.2f}   {baseline}\n")


if __name__ == "__main__":
    typer.run(main)
