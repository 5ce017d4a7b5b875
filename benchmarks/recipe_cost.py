"""What a training step of each recipe costs relative to plain cross-entropy on the same net and batch, paired in one run.

    python benchmarks/recipe_cost.py --rounds 15

Printed are the medians of the per-round ratios of seconds, and the ratio of the memory kept for backward passes.
Softplus recipes are compared with plain cross-entropy on the softplus net.
"""

from __future__ import annotations

import statistics
import sys

import typer

from bench.data import load_split
from bench.studies.step_costs import step_costs
from bench.training import list_recipes, make_recipe


def main(rounds: int = 15) -> None:
    names = [template.name for template in list_recipes() if template.name not in ("standard", "vae_gan")]
    recipes = {name: make_recipe(name, "fashion_mnist") for name in names}
    recipes["lga, detached"] = make_recipe("lga", "fashion_mnist", {"detach_reference": True})
    plain = {name: make_recipe("standard", "fashion_mnist", {"activation": name}) for name in ("relu", "softplus")}
    costs = step_costs(recipes | plain, load_split("fashion_mnist", "test"), rounds)
    sys.stdout.write(f"{'recipe':20}{'ms a step':>10}{'ratio':>8}{'memory':>8}   relative to plain cross-entropy on\n")
    for name, recipe in recipes.items():
        own, baseline = costs[name], costs[recipe.schedule.activation]
        ratio = statistics.median(own / base for own, base in zip(own.seconds, baseline.seconds, strict=True))
        memory = own.kept_bytes / baseline.kept_bytes
        milliseconds = 1e3 * statistics.median(own.seconds)
        sys.stdout.write(f"{name:20}{milliseconds:10.1f}{ratio:8.2f}{memory:8.2f}   {recipe.schedule.activation}\n")


if __name__ == "__main__":
    typer.run(main)
