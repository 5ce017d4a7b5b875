"""Seconds of the sweep against images and radii."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from peers.problem import RADII, Problem, load, sweep

from bench.core.memory import keep_freed_memory
from bench.core.threat import NORMS


def scaling(
    model: Annotated[list[str], typer.Option()] = ["standard", "at_linf"],  # noqa: B006
    norm: str = "linf",
    suite: str = "cross_norm_quick",
    examples: Annotated[list[int], typer.Option()] = [100, 300, 1000, 3000, 10000],  # noqa: B006
    radii: Annotated[list[int], typer.Option()] = [1, 3, 5, 10, 15],  # noqa: B006
) -> None:
    """Seconds of the sweep as a suite has it, against images (five radii) and against radii (1,000 images at the most)."""
    keep_freed_memory()
    chosen = next(item for item in NORMS if item == norm)
    for name in model:
        problem = load(name, max(examples), prepared=True)
        sys.stdout.write(f"\n{name}, {norm}, as in {suite}\n")
        for count in examples:
            part = Problem(name, problem.model, problem.images[:count], problem.labels[:count])
            seconds = sweep(part, chosen, RADII[chosen], part.results(), suite=suite)
            sys.stdout.write(f"  {count:6} images, 5 radii {seconds:8.2f} s{1000 * seconds / count:8.2f} ms an image\n")
        few = min(1000, max(examples))
        part, largest = Problem(name, problem.model, problem.images[:few], problem.labels[:few]), RADII[chosen][-1]
        for count in radii:
            ladder = [largest * (step + 1) / count for step in range(count)]
            seconds = sweep(part, chosen, ladder, part.results(), suite=suite)
            sys.stdout.write(f"  {few:6} images, {count:2} radii {seconds:8.2f} s\n")
        sys.stdout.flush()
