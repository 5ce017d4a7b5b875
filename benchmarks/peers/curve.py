"""The whole curve by PGD of each peer, and by the sweep."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated

import torch
import typer
from peers.attacks import PEERS, STEPS, UNIT, Pgd
from peers.problem import RADII, Counting, Problem, judge, load, sweep

from bench.core.memory import keep_freed_memory
from bench.core.threat import NORMS, Norm


@dataclass
class Rival:
    """What one peer needed for one norm's curve, and found."""

    seconds: float
    accuracies: list[float]


def curve(
    model: Annotated[list[str], typer.Option()] = ["standard", "ir_smoothgrad", "at_linf"],  # noqa: B006
    examples: int = 500,
    peer: Annotated[list[str], typer.Option()] = list(PEERS),  # noqa: B006
    suite: Annotated[list[str], typer.Option()] = ["cross_norm_quick", "cross_norm"],  # noqa: B006
) -> None:
    """Robust accuracy at five radii in three norms, by each peer at 40 steps and by the sweep as suites pin it.

    Our memory setting cannot be taken back, and the peers of a second model profit from it: ask for one model a call.
    """
    for name in model:
        torch.manual_seed(0)
        problem = load(name, examples)
        rivals = {norm: _rivals(problem, norm, peer) for norm in NORMS}
        keep_freed_memory()
        for each in suite:
            _our_curve(load(name, examples, prepared=True), each, rivals)


def _rivals(problem: Problem, norm: Norm, peers: list[str]) -> dict[str, Rival]:
    sys.stdout.write(f"\n{problem.name}, {norm}, radii {RADII[norm]}, {len(problem.images)} images, {STEPS} steps\n")
    found = {}
    for label in peers:
        try:
            accuracies, seconds, gradients = _peer_curve(problem, PEERS[label], norm)
        except Exception as error:  # noqa: BLE001  (whatever stops a peer is what is to be reported)
            sys.stdout.write(f"  {label:22}cannot run: {' '.join(str(error).split())[:90]}\n")
            continue
        found[label] = Rival(seconds, accuracies)
        _row(label, accuracies, seconds, gradients, ratio="")
    return found


def _our_curve(problem: Problem, suite: str, rivals: dict[Norm, dict[str, Rival]]) -> None:
    sys.stdout.write(f"\n{problem.name}: the sweep as in {suite}\n")
    results, total, fastest, above = problem.results(), 0.0, 0.0, []
    for norm in NORMS:
        own = problem.results()  # the suites search each norm by itself
        seconds = sweep(problem, norm, RADII[norm], own, suite=suite)
        results.add(own, torch.arange(len(problem.labels)))
        accuracies = [float((~results.broken(norm, eps)).double().mean()) for eps in RADII[norm]]
        peers, ratio = rivals[norm], ""
        if peers:
            best = min(peers, key=lambda label: peers[label].seconds)
            ratio = f"{peers[best].seconds / seconds:.1f} times as fast as {best}"
            fastest += peers[best].seconds
            lowest = [min(values) for values in zip(*(rival.accuracies for rival in peers.values()), strict=True)]
            above += [ours - theirs for ours, theirs in zip(accuracies, lowest, strict=True)]
        _row(f"sweep, {norm}", accuracies, seconds, own.gradient_evaluations, ratio=ratio)
        total += seconds
    higher = [gap for gap in above if gap > 0]
    sys.stdout.write(
        f"  all norms: {total:.1f} s, {fastest / total:.1f} times as fast as the fastest peers; above the lowest peer in "
        f"{len(higher)} of {len(above)} cells, by at most {100 * max(above, default=0.0):.1f} points\n"
    )
    sys.stdout.flush()


def _peer_curve(problem: Problem, peer: Pgd, norm: Norm) -> tuple[list[float], float, int]:
    """Robust accuracy per radius, seconds, gradients. Each radius is attacked on its own, as the peers do it."""
    counting, seconds, accuracies = Counting(problem.model), 0.0, []
    results = problem.results()
    for eps in RADII[norm]:
        for begin in range(0, len(problem.images), UNIT):
            part = slice(begin, begin + UNIT)
            began = problem.clock()
            found = peer(counting, problem.images[part], problem.labels[part], norm, eps)
            seconds += problem.clock() - began
            judge(problem, found, begin, norm, eps=eps, results=results)
        accuracies.append(float((~results.broken(norm, eps)).double().mean()))
    return accuracies, seconds, counting.gradients


def _row(label: str, accuracies: list[float], seconds: float, gradients: int, ratio: str) -> None:
    cells = "".join(f"{100 * value:7.1f}" for value in accuracies)
    sys.stdout.write(f"  {label:22}{cells}{seconds:9.1f} s{gradients:11,} gradients  {ratio}\n")
    sys.stdout.flush()
