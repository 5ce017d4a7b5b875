"""The sweep against torchattacks: same model, images, norms, radii and number of steps, paired in one run.

    python benchmarks/against_torchattacks.py --examples 1000 --model standard --model at_linf

Prints, for each model and norm, robust accuracy at each radius by both, seconds, and their ratio; exits with 1 if the
sweep's robust accuracy is above torchattacks' by more than 0.5 points anywhere. Both use cross-entropy, one start and
40 steps; torchattacks takes steps of 2.5 * eps / 40. The other rows are the sweep as the suites cross_norm_quick and
cross_norm have it. torchattacks gets the plain PyTorch net, the sweep the net as `bench run` prepares it.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
import typer
from torch import Tensor

from bench.attacks.adapters.torchattacks import import_torchattacks
from bench.attacks.registry import named_attack
from bench.attacks.running import Examples, run_attack
from bench.attacks.sweep.restarts import SweepSettings
from bench.attacks.sweep.sweep import NormSweep
from bench.attacks.verification import AttackResults
from bench.catalog.models import ModelEntry, load_model, resolve_models
from bench.core.memory import keep_freed_memory
from bench.core.threat import Norm
from bench.data import load_split
from bench.nets.preparation import prepare_net

STEPS = 40
RADII: dict[Norm, list[float]] = {"linf": [0.02, 0.05, 0.1, 0.15, 0.2], "l2": [0.5, 1.0, 1.5, 2.0, 2.5]}
CLASSES: dict[Norm, str] = {"linf": "PGD", "l2": "PGDL2"}
TOLERANCE = 0.005


def timed(attack: Callable[[AttackResults], None], clean: Tensor, labels: Tensor) -> tuple[AttackResults, float]:
    results = AttackResults.start(clean, labels)
    began = time.perf_counter()
    attack(results)
    return results, time.perf_counter() - began


def compare(entry: ModelEntry, norm: Norm, images: Tensor, labels: Tensor) -> bool:
    """Print one table; whether the sweep is nowhere weaker than the tolerance allows."""
    model, name, ids = load_model(entry), entry.card.name, torch.arange(len(images))
    prepared = prepare_net(copy.deepcopy(model))
    with torch.no_grad():
        clean = torch.cat([model(batch).argmax(1) for batch in images.split(500)])
    radii = RADII[norm]
    keywords = {"steps": STEPS, "relative_parameters": {"alpha": 2.5 / STEPS}}
    run, unit = (
        named_attack(f"torchattacks:{CLASSES[norm]}", keywords),
        Examples(model, images, labels, ids, num_classes=10),
    )

    def theirs(results: AttackResults) -> None:
        run_attack(run, unit, norm, radii, results=results)

    def sweep(settings: SweepSettings) -> Callable[[AttackResults], None]:
        return lambda results: NormSweep(
            model=prepared,
            images=images,
            labels=labels,
            example_ids=ids,
            norm=norm,
            radii=radii,
            settings=settings,
            results=results,
        ).run()

    rows = {
        f"torchattacks {CLASSES[norm]}": timed(theirs, clean, labels),
        "sweep, one attempt": timed(sweep(SweepSettings(STEPS, ("cross_entropy",))), clean, labels),
        "sweep, as in cross_norm_quick": timed(sweep(SweepSettings(7, ("cross_entropy",), refine=11)), clean, labels),
        "sweep, as in cross_norm": timed(
            sweep(SweepSettings(19, ("cross_entropy",), targets=3, refine=19)), clean, labels
        ),
    }
    sys.stdout.write(
        f"\n{name}, {norm}, {len(images)} images\n{'':30}"
        + "".join(f"{eps:>8.4g}" for eps in radii)
        + "       s   ratio\n"
    )
    accuracies: dict[str, list[float]] = {}
    baseline = rows[f"torchattacks {CLASSES[norm]}"][1]
    for label, (results, seconds) in rows.items():
        accuracies[label] = [float((~results.broken(norm, eps)).double().mean()) for eps in radii]
        cells = "".join(f"{100 * value:8.1f}" for value in accuracies[label])
        sys.stdout.write(f"{label:30}{cells}{seconds:8.1f}{baseline / seconds:8.1f}\n")
    first, second = accuracies[f"torchattacks {CLASSES[norm]}"], accuracies["sweep, one attempt"]
    return all(ours <= other + TOLERANCE for ours, other in zip(second, first, strict=True))


def main(
    model: Annotated[list[str], typer.Option()] = ["standard", "at_linf"],  # noqa: B006
    examples: int = 1000,
) -> None:
    keep_freed_memory()
    import_torchattacks()
    data = load_split("fashion_mnist", "test")
    images, labels = data.pixels(slice(0, examples)), data.labels[:examples]
    good: Sequence[bool] = [compare(entry, norm, images, labels) for entry in resolve_models(model) for norm in RADII]
    raise SystemExit(0 if all(good) else 1)


if __name__ == "__main__":
    typer.run(main)
