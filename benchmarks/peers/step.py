"""What a gradient costs within the sweep."""

from __future__ import annotations

import statistics
import sys
from typing import Annotated

import torch
import typer
from peers.problem import Problem, load, sweep
from torch import nn

from bench.core.memory import keep_freed_memory
from bench.core.threat import NORMS, Norm


def step(
    model: Annotated[list[str], typer.Option()] = ["at_linf", "at_l2"],  # noqa: B006
    batch: int = 250,
    repeats: int = 5,
) -> None:
    """What a gradient costs within the sweep, against the bare forward and backward pass at the same batch.

    Radii so small that hardly an image breaks, so that batches stay full. The bare pass: parameters frozen, channels
    last, cross-entropy, torch.autograd.grad to the images; of the plain net, and of the prepared one, whose input
    gradient is quicker. Interleaved; the median of the repeats' ratios.
    """
    keep_freed_memory()
    small: dict[Norm, float] = {"linf": 0.005, "l2": 0.05, "l1": 0.3}
    for name in model:
        plain, problem = load(name, batch), load(name, batch, prepared=True)
        for norm in NORMS:
            rows = []
            for _ in range(repeats):
                results = problem.results()
                seconds = sweep(problem, norm, [small[norm]], results)
                passes = max(1, results.gradient_evaluations // batch)
                swept = seconds / results.gradient_evaluations
                bare = [_bare(each, passes) / batch for each in (plain, problem)]
                rows.append([1e6 * bare[0], swept / bare[0], 1e6 * bare[1], swept / bare[1]])
            medians = [statistics.median(column) for column in zip(*rows, strict=True)]
            sys.stdout.write(
                f"{name}, {norm}: the plain net {medians[0]:.0f} us a gradient, the sweep {medians[1]:.2f} times that; "
                f"the prepared net {medians[2]:.0f} us, the sweep {medians[3]:.2f} times that\n"
            )
            sys.stdout.flush()


def _bare(problem: Problem, passes: int) -> float:
    """Seconds of one forward and backward pass over the batch."""
    images = problem.images.contiguous(memory_format=torch.channels_last)
    problem.model.requires_grad_(False).to(memory_format=torch.channels_last)
    began = problem.clock()
    for _ in range(passes):
        given = images.detach().requires_grad_(True)
        loss = nn.functional.cross_entropy(problem.model(given), problem.labels, reduction="sum")
        torch.autograd.grad(loss, given)
    return (problem.clock() - began) / passes
