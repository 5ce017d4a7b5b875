"""Plain pyautoattack, RobustBench's benchmark(), our suite autoattack and our cascade."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from peers.attacks import UNIT, Pgd, import_robustbench, plain_autoattack, robustbench_benchmark
from peers.problem import REFERENCE, Problem, judge, load
from torch import Tensor

from bench.attacks.cascade.stages import Stage
from bench.attacks.registry import named_attack
from bench.attacks.running import Examples, run_attack
from bench.attacks.verification import AttackResults
from bench.catalog.suites import resolve_suites
from bench.core.memory import keep_freed_memory
from bench.core.threat import NORMS, Norm
from bench.protocols.robustness.presets import CascadeParameters

COMPONENTS = ("apgd-ce", "apgd-t", "fab-t", "square")


def autoattack(
    model: Annotated[list[str], typer.Option()] = ["lga", "ir_smoothgrad", "at_linf", "at_l2"],  # noqa: B006
    norm: Annotated[list[str], typer.Option()] = ["linf", "l2"],  # noqa: B006
    examples: int = 200,
    robustbench: Annotated[Path | None, typer.Option(help="the folder it is installed in")] = None,
) -> None:
    """AutoAttack's standard version plain, by RobustBench's benchmark(), by the suite autoattack, and the cascade.

    RobustBench goes into a folder of its own, since its pins fit nothing else and it brings a package `tests`:
    pip install --no-deps --target DIR robustbench==1.1.1 gdown geotorch torchdiffeq beautifulsoup4 soupsieve tqdm
    """
    if robustbench is not None:
        import_robustbench(robustbench)
    for name in model:
        for each in (item for item in NORMS if item in norm):
            _compare_autoattack(name, each, examples, robustbench=robustbench is not None)


def _compare_autoattack(name: str, norm: Norm, examples: int, *, robustbench: bool) -> None:
    problem, eps = load(name, examples), REFERENCE[norm]
    sys.stdout.write(f"\n{name}, {norm} {eps:g}, {examples} images\n")
    broken, baseline = theirs(problem, plain_autoattack, norm, eps)
    _verdict("pyautoattack, plain", broken, broken, baseline, baseline=baseline)
    if robustbench:
        try:
            found, seconds = theirs(problem, robustbench_benchmark, norm, eps)
            _verdict("robustbench benchmark", found, broken, seconds, baseline=baseline)
        except Exception as error:  # noqa: BLE001
            sys.stdout.write(f"  {'robustbench benchmark':24}cannot run: {type(error).__name__}: {error}\n")
    keep_freed_memory()
    problem = load(name, examples, prepared=True)
    for label, attack in (("suite autoattack", suite_autoattack), ("cascade", suite_cascade)):
        began = problem.clock()
        ours = attack(problem, norm, eps)
        _verdict(label, ours, broken, problem.clock() - began, baseline=baseline)


def theirs(problem: Problem, peer: Pgd, norm: Norm, eps: float) -> tuple[Tensor, float]:
    """Which examples a peer's AutoAttack breaks, by our judge, and its seconds."""
    began = problem.clock()
    found = peer(problem.model, problem.images, problem.labels, norm, eps)
    seconds = problem.clock() - began
    problem.model.requires_grad_(False)
    results = problem.results()
    for begin in range(0, len(found), UNIT):
        judge(problem, found[begin : begin + UNIT], begin, norm, eps=eps, results=results)
    return results.broken(norm, eps), seconds


def _verdict(label: str, ours: Tensor, theirs: Tensor, seconds: float, baseline: float) -> None:
    sys.stdout.write(
        f"  {label:24}robust {100 * float((~ours).double().mean()):6.2f} %{seconds:9.1f} s"
        f"{100 * seconds / baseline:8.1f} % of plain; only it breaks {int((ours & ~theirs).sum())}, "
        f"only plain breaks {int((theirs & ~ours).sum())}\n"
    )
    sys.stdout.flush()


def _units(problem: Problem, attack: Callable[[Examples, AttackResults], None], norm: Norm, eps: float) -> Tensor:
    verdicts = []
    for begin in range(0, len(problem.images), UNIT):
        part = problem.take(slice(begin, begin + UNIT))
        ids = torch.arange(len(part.images), device=part.images.device) + begin
        results = part.results()
        attack(Examples(part.model, part.images, part.labels, ids, num_classes=10), results)
        verdicts.append(results.broken(norm, eps))
    return torch.cat(verdicts)


def suite_autoattack(problem: Problem, norm: Norm, eps: float) -> Tensor:
    """(N,) bool: what the suite autoattack breaks, on the CPU."""

    def attack(part: Examples, results: AttackResults) -> None:
        for component in COMPONENTS:
            run_attack(named_attack(component, {}), part, norm, [eps], results=results)

    return _units(problem, attack, norm, eps)


def suite_cascade(problem: Problem, norm: Norm, eps: float) -> Tensor:
    """(N,) bool: what autoattack_fast breaks, on the CPU."""
    parameters = CascadeParameters.model_validate(resolve_suites(["autoattack_fast"])[0].file.parameters)
    return cascade(problem, norm, eps, tuple(parameters.stages))


def cascade(problem: Problem, norm: Norm, eps: float, stages: tuple[Stage, ...]) -> Tensor:
    run = named_attack("cascade", {"stages": stages})

    def attack(part: Examples, results: AttackResults) -> None:
        run_attack(run, part, norm, [eps], results=results)

    return _units(problem, attack, norm, eps)
