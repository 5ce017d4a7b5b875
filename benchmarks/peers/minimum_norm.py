"""The smallest perturbation of each image by the peers' minimum-norm attacks, and by the suite minimum_norm."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from peers.attacks import UNIT
from peers.brendel_bethge import compiled, walk_boundary
from peers.problem import Problem, load
from torch import Tensor, nn

from bench.attacks.registry import NamedAttack
from bench.attacks.running import Examples, fewest_changes, run_attack
from bench.catalog.suites import resolve_suites
from bench.core.memory import keep_freed_memory
from bench.core.threat import NORM_LABELS
from bench.protocols.robustness.presets import MinimumNormParameters

STEPS = 1000
_ORDER: dict[str, float] = {"linf": float("inf"), "l2": 2, "l1": 1, "l0": 0}


def minimum_norm(
    model: Annotated[list[str], typer.Option()] = ["at_l2", "ir_smoothgrad", "standard"],  # noqa: B006
    examples: int = 50,
    norm: Annotated[list[str], typer.Option()] = list(_ORDER),  # noqa: B006
    split: Literal["train", "test"] = "test",
    data_dir: Path | None = None,
    brendel_bethge: Annotated[bool, typer.Option(help="Foolbox's too; 5 s an image and norm on a CPU")] = False,
    cache: Annotated[Path | None, typer.Option(help="a folder that keeps what peers found, for the next time")] = None,
) -> None:
    """The smallest perturbation per image: adv-lib's FMN, DDN, PDPGD, SuperDeepFool and sigma-zero, and minimum_norm;
    Foolbox's Brendel-Bethge where asked for.

    Images that the net classifies right; distances of what fools the net, recounted in float64. Tune on the training
    split, report on the test split.
    """
    for name in model:
        problem = _right(load(name, examples, split=split, data_dir=data_dir))
        file = None if cache is None else cache / f"{name}-{split}-{examples}.npz"
        rivals = dict(np.load(file)) if file is not None and file.exists() else {}
        for each in norm:
            for label, attack in _peers(each, brendel_bethge).items():
                if f"{each}/{label}" not in rivals:
                    rivals |= _found(problem, f"{each}/{label}", attack)
                    if file is not None:
                        np.savez(file, **rivals)
        keep_freed_memory()
        ours = _ours(_right(load(name, examples, prepared=True, split=split, data_dir=data_dir)), norm)
        _table(problem, rivals, ours, norm)


def _right(problem: Problem) -> Problem:
    """The images that the net classifies right."""
    with torch.no_grad():
        right = problem.model(problem.images).argmax(1) == problem.labels
    return Problem(problem.name, problem.model, problem.images[right], problem.labels[right])


def _peers(norm: str, brendel_bethge: bool) -> dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]]:
    sys.modules.setdefault("visdom", ModuleType("visdom"))  # for live plots, which no attack needs
    from adv_lib.attacks import ddn, fmn, pdpgd, sdf, sigma_zero

    found: dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {
        "FMN": lambda *given: fmn(*given, norm=_ORDER[norm], steps=STEPS),
        "PDPGD": lambda *given: pdpgd(*given, norm=_ORDER[norm], num_steps=STEPS),
    }
    if norm == "l2":
        found["DDN"] = lambda *given: ddn(*given, steps=STEPS, levels=None)
        found["SuperDeepFool"] = sdf
    if norm == "l0":
        found["sigma-zero"] = lambda *given: sigma_zero(*given, num_steps=STEPS)
    if brendel_bethge:
        with suppress(Exception):  # before the clock runs; what stops it is met again, and reported, in the attack
            compiled(norm, STEPS)
        found["Brendel-Bethge"] = lambda *given: walk_boundary(norm, STEPS, *given)
    return found


def _found(problem: Problem, key: str, attack: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> dict[str, Any]:
    torch.manual_seed(0)
    began = problem.clock()
    try:
        parts = zip(problem.images.split(UNIT), problem.labels.split(UNIT), strict=True)
        images = torch.cat([attack(problem.model, *part).detach().float() for part in parts]).clamp(0, 1)
    except Exception as error:  # noqa: BLE001  (whatever stops a peer is what is to be reported)
        sys.stdout.write(f"  {problem.name}, {key}: cannot run: {' '.join(str(error).split())[:90]}\n")
        return {}
    seconds = problem.clock() - began
    with torch.no_grad():
        fooled = problem.model(images).argmax(1) != problem.labels
    delta = (images.double() - problem.images.double()).flatten(1)
    lengths = torch.linalg.vector_norm(delta, _ORDER[key.partition("/")[0]], dim=1)
    return {key: torch.where(fooled, lengths, torch.inf).cpu().numpy(), f"{key}/seconds": np.array(seconds)}


def _ours(problem: Problem, norms: list[str]) -> dict[str, tuple[Tensor, float]]:
    """Distances and seconds in each norm, by the attacks that the suite pins."""
    plan = MinimumNormParameters.model_validate(resolve_suites(["minimum_norm"])[0].file.parameters).plan()
    sweep, zero = (entry.prepared(None) for entry in plan.entries)
    results, found = problem.results(), {}
    ids = torch.arange(len(problem.labels), device=problem.labels.device)
    examples = Examples(problem.model, problem.images, problem.labels, ids, num_classes=10)
    for norm in norms:
        began = problem.clock()
        run: NamedAttack = zero if norm == "l0" else sweep
        if norm == "l0":
            distances = fewest_changes(run, examples, results)[0]
        else:
            run_attack(run, examples, norm, plan.radii_of("fashion_mnist")[norm], results=results)  # type: ignore[index,arg-type]
            distances = results.distances[norm].clone()  # type: ignore[index]
        found[norm] = distances, problem.clock() - began
    return found


def _table(problem: Problem, rivals: dict[str, Any], ours: dict[str, tuple[Tensor, float]], norms: list[str]) -> None:
    sys.stdout.write(
        f"\n{problem.name}: {len(problem.labels)} images, peers at {STEPS:,} steps; ratios to the best peer\n"
    )
    spent, theirs = 0.0, 0.0
    for norm in norms:
        names = [key for key in rivals if key.startswith(f"{norm}/") and not key.endswith("/seconds")]
        best = torch.from_numpy(np.minimum.reduce([rivals[key] for key in names]))
        rows = [(key, torch.from_numpy(rivals[key]), float(rivals[f"{key}/seconds"])) for key in names]
        rows.append((f"{norm}/minimum_norm", *ours[norm]))
        theirs, spent = theirs + sum(row[2] for row in rows[:-1]), spent + ours[norm][1]
        for key, distances, seconds in rows:
            ratio = distances / best
            sys.stdout.write(
                f"  {NORM_LABELS[norm]:6}{key.partition('/')[2]:15} median {float(distances.median()):9.4f}, at most 1.005 of "
                f"the best in {100 * float((ratio <= 1.005).double().mean()):5.1f} %, smaller in "
                f"{100 * float((ratio < 0.995).double().mean()):5.1f} %, {seconds:7.1f} s\n"
            )
        ratio = rows[-1][1] / best
        tail = [f"{at} {float(ratio[at]):.3f}" for at in ratio.argsort(descending=True).tolist() if ratio[at] > 1.005]
        sys.stdout.write(f"  {NORM_LABELS[norm]:6}where ours is longer: {', '.join(tail) or 'nowhere'}\n")
    sys.stdout.write(f"  all: ours {spent:.1f} s, the peers {theirs:.1f} s, {100 * spent / theirs:.0f} %\n")
    sys.stdout.flush()
