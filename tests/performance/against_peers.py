"""RIBench against its peers: same model, images, norms, radii and steps, paired in one run.

    pip install -e '.[peers]'
    python tests/performance/against_peers.py curve --model standard --model at_linf --examples 500
    python tests/performance/against_peers.py autoattack --model lga --norm linf --examples 200
    python tests/performance/against_peers.py scaling --model standard --model at_linf
    python tests/performance/against_peers.py step

`curve`: the whole L-inf, L2 and L1 curve (five radii each) by PGD of each peer that has the norm, and by the sweep as
cross_norm has it. `autoattack`: plain pyautoattack, RobustBench's benchmark(), our suite autoattack and our cascade.
`scaling`: seconds of the sweep against images and radii. `step`: what a gradient costs within the sweep. Everything is verified by the same judge. Seconds are of the
processor on a CPU, so that other processes don't count, and of the clock on a GPU; peers run first, before our own
memory setting (bench.core.memory) is on. A peer that cannot run is named with the reason.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from bench.attacks.attempts import SweepSettings
from bench.attacks.autoattack import run_component
from bench.attacks.cascade import Cascade, Stage
from bench.attacks.pyautoattack_adapter import AutoAttackSettings, components_of
from bench.attacks.sweep import NormSweep
from bench.attacks.verification import Ledger, verify
from bench.catalog.locations import shipped
from bench.catalog.models import load_model, resolve_models
from bench.core.memory import keep_freed_memory
from bench.core.threat import NORMS, Norm
from bench.data import load_split

STEPS = 40
RADII: dict[Norm, list[float]] = {
    "linf": [0.02, 0.05, 0.1, 0.15, 0.2], "l2": [0.5, 1.0, 1.5, 2.0, 2.5], "l1": [5.0, 10.0, 15.0, 20.0, 30.0],
}  # fmt: skip
REFERENCE: dict[Norm, float] = {"linf": 0.1, "l2": 1.5, "l1": 15.0}
UNIT = 250
app = typer.Typer(add_completion=False)


class Counting(nn.Module):
    """The model, counting the images that pass for a gradient."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.gradients = model, 0

    def forward(self, images: Tensor) -> Tensor:
        if images.requires_grad:
            self.gradients += len(images)
        logits: Tensor = self.model(images)
        return logits


@dataclass
class Problem:
    name: str
    model: nn.Module
    images: Tensor
    labels: Tensor

    def ledger(self) -> Ledger:
        with torch.no_grad():
            clean = torch.cat([self.model(part).argmax(1) for part in self.images.split(UNIT)])
        return Ledger.start(clean.cpu(), self.labels.cpu())

    def clock(self) -> float:
        if self.images.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()


def load(name: str, examples: int) -> Problem:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = load_split("fashion_mnist", "test")
    model = load_model(resolve_models([name])[0], device)
    return Problem(name, model, data.pixels(slice(0, examples)).to(device), data.labels[:examples].to(device))


# --- the peers' PGD: (model, images, labels, norm, eps) -> adversarial images; None where a peer lacks the norm
Pgd = Callable[[nn.Module, Tensor, Tensor, Norm, float], Tensor]


def _torchattacks(model: nn.Module, images: Tensor, labels: Tensor, norm: Norm, eps: float) -> Tensor:
    from bench.attacks.torchattacks_adapter import import_torchattacks

    if norm == "l1":
        raise NotImplementedError("no L1")
    attack = getattr(import_torchattacks(), "PGD" if norm == "linf" else "PGDL2")
    found: Tensor = attack(model, eps=eps, alpha=2.5 * eps / STEPS, steps=STEPS)(images, labels)
    return found


def _foolbox(model: nn.Module, images: Tensor, labels: Tensor, norm: Norm, eps: float) -> Tensor:
    import foolbox

    attack = {
        "linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD,
        "l1": foolbox.attacks.L1ProjectedGradientDescentAttack,
    }[norm](steps=STEPS, rel_stepsize=2.5 / STEPS)  # fmt: skip
    target = foolbox.PyTorchModel(model.eval(), bounds=(0, 1), device=images.device)
    _, found, _ = attack(target, images, labels, epsilons=eps)
    return found


def _art(model: nn.Module, images: Tensor, labels: Tensor, norm: Norm, eps: float) -> Tensor:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        model, loss=nn.CrossEntropyLoss(), input_shape=tuple(images.shape[1:]), nb_classes=10, clip_values=(0, 1),
    )  # fmt: skip
    order = {"linf": "inf", "l2": 2, "l1": 1}[norm]
    attack = ProjectedGradientDescentPyTorch(
        classifier, norm=order, eps=eps, eps_step=2.5 * eps / STEPS, max_iter=STEPS, num_random_init=1,
        batch_size=UNIT, verbose=False,
    )  # fmt: skip
    return torch.from_numpy(attack.generate(images.cpu().numpy(), labels.cpu().numpy())).to(images.device)


def _adv_lib(model: nn.Module, images: Tensor, labels: Tensor, norm: Norm, eps: float) -> Tensor:
    if norm != "linf":
        raise NotImplementedError("its PGD is L-inf only")
    # adv-lib imports visdom for its live plots; no attack needs it
    sys.modules.setdefault("visdom", ModuleType("visdom"))
    from adv_lib.attacks import pgd_linf

    found: Tensor = pgd_linf(model, images, labels, ε=eps, steps=STEPS, relative_step_size=2.5 / STEPS)
    return found


PEERS: dict[str, Pgd] = {"torchattacks": _torchattacks, "foolbox": _foolbox, "art": _art, "adv-lib": _adv_lib}


def _judge(problem: Problem, found: Tensor, begin: int, norm: Norm, eps: float, ledger: Ledger) -> None:
    clean, labels = problem.images[begin : begin + UNIT], problem.labels[begin : begin + UNIT]
    radius = clean.new_full((len(clean),), eps)
    verified, distances, predictions = verify(problem.model, found.detach().float(), clean, labels, radius, norm)
    chosen = verified.nonzero().squeeze(1)
    ledger.record(
        chosen.cpu() + begin, norm, {key: value[chosen] for key, value in distances.items()}, predictions[chosen]
    )


def _peer_curve(problem: Problem, peer: Pgd, norm: Norm) -> tuple[list[float], float, int]:
    """Robust accuracy per radius, seconds, gradients. Each radius is attacked on its own, as the peers do it."""
    counting, seconds, accuracies = Counting(problem.model), 0.0, []
    ledger = problem.ledger()
    for eps in RADII[norm]:
        for begin in range(0, len(problem.images), UNIT):
            part = slice(begin, begin + UNIT)
            began = problem.clock()
            found = peer(counting, problem.images[part], problem.labels[part], norm, eps)
            seconds += problem.clock() - began
            _judge(problem, found, begin, norm, eps, ledger)
        accuracies.append(float((~ledger.broken(norm, eps)).double().mean()))
    return accuracies, seconds, counting.gradients


def _sweep(
    problem: Problem, norm: Norm, radii: list[float], ledger: Ledger, steps: int = STEPS, *, once: bool = False
) -> float:
    ids = torch.arange(len(problem.images), device=problem.images.device)
    began = problem.clock()
    suite: dict[str, Any] = tomllib.loads((shipped("suites") / "cross_norm.toml").read_text())
    attack = suite["parameters"]["attacks"][0]
    losses, targets = tuple(attack["losses"]), attack["targets"].get(norm, 0)
    settings = SweepSettings(steps, losses[:1] if once else losses, attack["patience"], 0, 0 if once else targets)
    NormSweep(problem.model, problem.images, problem.labels, ids, norm, radii, settings, ledger).run()
    return problem.clock() - began


def _row(label: str, accuracies: list[float], seconds: float, gradients: int, ratio: str) -> None:
    cells = "".join(f"{100 * value:7.1f}" for value in accuracies)
    sys.stdout.write(f"  {label:22}{cells}{seconds:9.1f} s{gradients:11,} gradients  {ratio}\n")
    sys.stdout.flush()


@app.command()
def curve(
    model: Annotated[list[str], typer.Option()] = ["standard", "ir_smoothgrad", "at_linf"],  # noqa: B006
    examples: int = 500,
    peer: Annotated[list[str], typer.Option()] = list(PEERS),  # noqa: B006
    steps: Annotated[list[int], typer.Option()] = [10, 40],  # noqa: B006
) -> None:
    """Robust accuracy at five radii in three norms, by each peer at 40 steps and by the sweep at several numbers of them.

    A peer's work is one attempt of 40 steps a radius. The sweep's with all attempts of 40 is what cross_norm does; one
    attempt, and fewer steps, show how soon it is as strong as the peers.
    """
    kept: dict[str, dict[Norm, dict[str, float]]] = {}
    for name in model:
        problem = load(name, examples)
        kept[name] = {norm: {} for norm in NORMS}
        for norm in NORMS:
            sys.stdout.write(f"\n{name}, {norm}, radii {RADII[norm]}, {examples} images, {STEPS} steps\n")
            for label in peer:
                try:
                    accuracies, seconds, gradients = _peer_curve(problem, PEERS[label], norm)
                except Exception as error:  # noqa: BLE001  (whatever stops a peer is what is to be reported)
                    sys.stdout.write(f"  {label:22}cannot run: {' '.join(str(error).split())[:90]}\n")
                    continue
                kept[name][norm][label] = seconds
                _row(label, accuracies, seconds, gradients, "")
    keep_freed_memory()
    for name in model:
        problem = load(name, examples)
        for count, once in [(count, once) for once in (True, False) for count in steps]:
            ledger = problem.ledger()
            attempts = "one attempt" if once else "all attempts"
            sys.stdout.write(f"\n{name}: the sweep, {attempts} of {count} steps, one ledger for all norms\n")
            total, fastest = 0.0, 0.0
            for norm in NORMS:
                before = ledger.gradient_evaluations
                seconds = _sweep(problem, norm, RADII[norm], ledger, count, once=once)
                accuracies = [float((~ledger.broken(norm, eps)).double().mean()) for eps in RADII[norm]]
                peers = kept[name][norm]
                best = min(peers, key=lambda label: peers[label]) if peers else ""
                ratio = f"{peers[best] / seconds:.1f} times as fast as {best}" if best else ""
                _row(f"sweep, {norm}", accuracies, seconds, ledger.gradient_evaluations - before, ratio)
                total, fastest = total + seconds, fastest + (peers[best] if best else 0.0)
            sys.stdout.write(f"  all norms: {total:.1f} s, {fastest / total:.1f} times as fast as the fastest peers\n")


@app.command()
def autoattack(
    model: Annotated[list[str], typer.Option()] = ["lga", "ir_smoothgrad", "at_linf", "at_l2"],  # noqa: B006
    norm: Annotated[list[str], typer.Option()] = ["linf", "l2"],  # noqa: B006
    examples: int = 200,
) -> None:
    """AutoAttack's standard version plain, by RobustBench, by the suite autoattack, and the cascade."""
    for name in model:
        for each in (item for item in NORMS if item in norm):
            _compare_autoattack(load(name, examples), each)


def _compare_autoattack(problem: Problem, norm: Norm) -> None:
    eps = REFERENCE[norm]
    sys.stdout.write(f"\n{problem.name}, {norm} {eps:g}, {len(problem.images)} images\n")
    broken, baseline = _plain(problem, norm, eps)
    _verdict("pyautoattack, plain", broken, broken, baseline, baseline)
    try:
        importlib.import_module("robustbench.eval")
    except Exception as error:  # noqa: BLE001
        sys.stdout.write(f"  {'robustbench benchmark':24}cannot run: {type(error).__name__}: {error}\n")
    keep_freed_memory()
    for label, attack in (("suite autoattack", _ours), ("cascade", _cascade)):
        began = problem.clock()
        ours = attack(problem, norm, eps)
        _verdict(label, ours, broken, problem.clock() - began, baseline)


def _verdict(label: str, ours: Tensor, theirs: Tensor, seconds: float, baseline: float) -> None:
    sys.stdout.write(
        f"  {label:24}robust {100 * float((~ours).double().mean()):6.2f} %{seconds:9.1f} s"
        f"{100 * seconds / baseline:8.1f} % of plain; only it breaks {int((ours & ~theirs).sum())}, "
        f"only plain breaks {int((theirs & ~ours).sum())}\n"
    )
    sys.stdout.flush()


def _plain(problem: Problem, norm: Norm, eps: float) -> tuple[Tensor, float]:
    """As a user runs it: a net whose parameters ask for gradients, 250 images a batch."""
    from pyautoattack import AutoAttack

    problem.model.requires_grad_(True)
    name = {"linf": "Linf", "l2": "L2", "l1": "L1"}[norm]
    began = problem.clock()
    attack = AutoAttack(problem.model, norm=name, eps=eps, seed=0, device=problem.images.device)
    found, _ = attack.run_standard_evaluation(problem.images, problem.labels)
    seconds = problem.clock() - began
    problem.model.requires_grad_(False)
    ledger = problem.ledger()
    for begin in range(0, len(found), UNIT):
        _judge(problem, found[begin : begin + UNIT], begin, norm, eps, ledger)
    return ledger.broken(norm, eps), seconds


def _units(problem: Problem, attack: Callable[[slice, Ledger], None], norm: Norm, eps: float) -> Tensor:
    verdicts = []
    for begin in range(0, len(problem.images), UNIT):
        part = slice(begin, begin + UNIT)
        ledger = Problem(problem.name, problem.model, problem.images[part], problem.labels[part]).ledger()
        attack(part, ledger)
        verdicts.append(ledger.broken(norm, eps))
    return torch.cat(verdicts)


def _ours(problem: Problem, norm: Norm, eps: float) -> Tensor:
    def attack(part: slice, ledger: Ledger) -> None:
        for component in components_of("standard", norm):
            run_component(
                component, problem.model, problem.images[part], problem.labels[part], torch.arange(UNIT) + part.start,
                AutoAttackSettings(norm, eps), (ledger,), num_classes=10, batch_size=256,
            )  # fmt: skip

    return _units(problem, attack, norm, eps)


def _cascade(problem: Problem, norm: Norm, eps: float) -> Tensor:
    suite: dict[str, Any] = tomllib.loads((shipped("suites") / "autoattack_fast.toml").read_text())
    stages = tuple(Stage(**section) for section in suite["parameters"]["stages"])

    def attack(part: slice, ledger: Ledger) -> None:
        images, labels = problem.images[part], problem.labels[part]
        ids = torch.arange(len(images), device=images.device) + part.start
        Cascade(problem.model, images, labels, ids, norm, eps, stages, ledger).run()

    return _units(problem, attack, norm, eps)


@app.command()
def scaling(
    model: Annotated[list[str], typer.Option()] = ["standard", "at_linf"],  # noqa: B006
    norm: str = "linf",
    examples: Annotated[list[int], typer.Option()] = [100, 300, 1000, 3000, 10000],  # noqa: B006
    radii: Annotated[list[int], typer.Option()] = [1, 3, 5, 10, 15],  # noqa: B006
) -> None:
    """Seconds of the sweep against images (five radii) and against radii (1,000 images, or the most asked for)."""
    keep_freed_memory()
    chosen = next(item for item in NORMS if item == norm)
    for name in model:
        problem = load(name, max(examples))
        sys.stdout.write(f"\n{name}, {norm}\n")
        for count in examples:
            part = Problem(name, problem.model, problem.images[:count], problem.labels[:count])
            seconds = _sweep(part, chosen, RADII[chosen], part.ledger())
            sys.stdout.write(f"  {count:6} images, 5 radii {seconds:8.2f} s{1000 * seconds / count:8.2f} ms an image\n")
        few = min(1000, max(examples))
        part, largest = Problem(name, problem.model, problem.images[:few], problem.labels[:few]), RADII[chosen][-1]
        for count in radii:
            ladder = [largest * (step + 1) / count for step in range(count)]
            seconds = _sweep(part, chosen, ladder, part.ledger())
            sys.stdout.write(f"  {few:6} images, {count:2} radii {seconds:8.2f} s\n")
        sys.stdout.flush()


@app.command()
def step(
    model: Annotated[list[str], typer.Option()] = ["at_linf", "at_l2"],  # noqa: B006
    batch: int = 250,
    repeats: int = 5,
) -> None:
    """What a gradient costs within the sweep, against the bare forward and backward pass at the same batch.

    Radii so small that hardly an image breaks, so that batches stay full. The bare pass: parameters frozen, the sweep's
    memory format, cross-entropy, torch.autograd.grad to the images. Interleaved; the median of the repeats' ratios.
    """
    keep_freed_memory()
    small: dict[Norm, float] = {"linf": 0.005, "l2": 0.05, "l1": 0.3}
    for name in model:
        problem = load(name, batch)
        for norm in NORMS:
            ratios, costs = [], []
            for _ in range(repeats):
                ledger = problem.ledger()
                seconds = _sweep(problem, norm, [small[norm]], ledger)
                swept = seconds / ledger.gradient_evaluations
                bare = _bare(problem, max(1, ledger.gradient_evaluations // batch)) / batch
                ratios.append(swept / bare)
                costs.append(bare)
            ratio, cost = statistics.median(ratios), 1e6 * statistics.median(costs)
            sys.stdout.write(f"{name}, {norm}: bare {cost:.0f} us a gradient, the sweep {ratio:.2f} times that\n")
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


if __name__ == "__main__":
    app()
