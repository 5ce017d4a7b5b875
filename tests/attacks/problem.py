"""A linear net with images around mid-grey, for running attacks on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bench.attacks.registry import NamedAttack, described
from bench.attacks.running import Examples, run_attack
from bench.attacks.verification import AttackResults
from bench.core.threat import Norm
from tests.attacks.linear import linear_problem


def small_examples(count: int = 24, seed: int = 0) -> tuple[Examples, torch.Tensor]:
    """The examples, and the radius at which each falls in L-inf."""
    model, images, labels = linear_problem(count)
    return Examples(model, images, labels, torch.arange(count), num_classes=2, seed=seed), model.exact_distance(
        images, "linf"
    )


def run_strangers(
    function: Callable[..., Any],
    radii: list[float],
    norm: Norm = "linf",
    examples: Examples | None = None,
    **facts: Any,
) -> AttackResults:
    """What a function of somebody else's, called `mine`, achieves on the examples."""
    examples = examples or small_examples()[0]
    results = AttackResults.start(examples.labels, examples.labels)
    attack = described(function, **{"name": "mine", "trusted": False, "keyed": False, **facts})
    run_attack(NamedAttack(attack, "mine", {}), examples, norm, radii, results=results)
    return results
