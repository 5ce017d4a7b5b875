"""RIBench against its peers: same model, images, norms, radii and steps, paired in one run.

    PIP_CONSTRAINT=benchmarks/constraints.txt pip install -e '.[peers]'
    python benchmarks/against_peers.py curve --model standard --examples 500
    python benchmarks/against_peers.py autoattack --model lga --norm linf --examples 200
    python benchmarks/against_peers.py scaling --model standard --model at_linf
    python benchmarks/against_peers.py step

`curve`: the whole L-inf, L2 and L1 curve (five radii each) by PGD of each peer that has the norm, and by the sweep as
cross_norm_quick and cross_norm have it. `autoattack`: plain pyautoattack, RobustBench's benchmark(), our suite autoattack and our cascade.
`scaling`: seconds of the sweep against images and radii. `step`: what a gradient costs within the sweep. Everything is
verified by the same judge. Peers get the plain PyTorch net, ours the net as `bench run` prepares it. Seconds are of the
processor on a CPU, so that other processes don't count, and of the clock on a GPU; peers run first, before our own
memory setting (bench.core.memory) is on. A peer that cannot run is named with the reason.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from peer_attacks import PEERS, STEPS, UNIT, Pgd, import_robustbench, plain_autoattack, robustbench_benchmark
from torch import Tensor, nn

from bench.attacks.cascade import Cascade, Stage
from bench.attacks.registry import named_attack
from bench.attacks.running import Examples, run_attack
from bench.attacks.sweep.restarts import SweepSettings
from bench.attacks.sweep.sweep import NormSweep
from bench.attacks.verification import AttackResults, verify
from bench.catalog.models import load_model, resolve_models
from bench.catalog.suites import resolve_suites
from bench.core.memory import keep_freed_memory
from bench.core.threat import NORMS, Norm
from bench.data import load_split
from bench.nets.input_conv import prepare_net

RADII: dict[Norm, list[float]] = {
    "linf": [0.02, 0.05, 0.1, 0.15, 0.2], "l2": [0.5, 1.0, 1.5, 2.0, 2.5], "l1": [5.0, 10.0, 15.0, 20.0, 30.0],
}  # fmt: skip
REFERENCE: dict[Norm, float] = {"linf": 0.1, "l2": 1.5, "l1": 15.0}
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

    def results(self) -> AttackResults:
        with torch.no_grad():
            clean = torch.cat([self.model(part).argmax(1) for part in self.images.split(UNIT)])
        return AttackResults.start(clean.cpu(), self.labels.cpu())

    def clock(self) -> float:
        if self.images.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()


def load(name: str, examples: int, *, prepared: bool = False) -> Problem:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = load_split("fashion_mnist", "test")
    model = load_model(resolve_models([name])[0], device)
    if prepared:
        prepare_net(model)
    return Problem(name, model, data.pixels(slice(0, examples)).to(device), data.labels[:examples].to(device))


def _judge(problem: Problem, found: Tensor, begin: int, norm: Norm, eps: float, results: AttackResults) -> None:
    clean, labels = problem.images[begin : begin + UNIT], problem.labels[begin : begin + UNIT]
    radius = clean.new_full((len(clean),), eps)
    verified, distances, predictions = verify(
        problem.model, found.detach().float(), clean, labels, eps=radius, norm=norm
    )
    chosen = verified.nonzero().squeeze(1)
    results.record(
        chosen.cpu() + begin, norm, {key: value[chosen] for key, value in distances.items()}, predictions[chosen]
    )


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
            _judge(problem, found, begin, norm, eps=eps, results=results)
        accuracies.append(float((~results.broken(norm, eps)).double().mean()))
    return accuracies, seconds, counting.gradients


def _sweep(
    problem: Problem, norm: Norm, radii: list[float], results: AttackResults, suite: str = "cross_norm"
) -> float:
    """Seconds of the sweep with the suite's settings."""
    ids = torch.arange(len(problem.images), device=problem.images.device)
    attack = resolve_suites([suite])[0].file.parameters["attacks"][0]
    settings = SweepSettings(
        attack["steps"], tuple(attack["losses"]), attack["patience"], 0, targets=attack.get("targets", {}).get(norm, 0),
        refine=attack["polish"],
    )  # fmt: skip
    began = problem.clock()
    NormSweep(
        model=problem.model,
        images=problem.images,
        labels=problem.labels,
        example_ids=ids,
        norm=norm,
        radii=radii,
        settings=settings,
        results=results,
    ).run()
    return problem.clock() - began


def _row(label: str, accuracies: list[float], seconds: float, gradients: int, ratio: str) -> None:
    cells = "".join(f"{100 * value:7.1f}" for value in accuracies)
    sys.stdout.write(f"  {label:22}{cells}{seconds:9.1f} s{gradients:11,} gradients  {ratio}\n")
    sys.stdout.flush()


@dataclass
class Rival:
    """What one peer needed for one norm's curve, and found."""

    seconds: float
    accuracies: list[float]


@app.command()
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
    sys.stdout.write(f"\n{problem.name}: the sweep as in {suite}, one results for all norms\n")
    results, total, fastest, above = problem.results(), 0.0, 0.0, []
    for norm in NORMS:
        before = results.gradient_evaluations
        seconds = _sweep(problem, norm, RADII[norm], results, suite=suite)
        accuracies = [float((~results.broken(norm, eps)).double().mean()) for eps in RADII[norm]]
        peers, ratio = rivals[norm], ""
        if peers:
            best = min(peers, key=lambda label: peers[label].seconds)
            ratio = f"{peers[best].seconds / seconds:.1f} times as fast as {best}"
            fastest += peers[best].seconds
            lowest = [min(values) for values in zip(*(rival.accuracies for rival in peers.values()), strict=True)]
            above += [ours - theirs for ours, theirs in zip(accuracies, lowest, strict=True)]
        _row(f"sweep, {norm}", accuracies, seconds, results.gradient_evaluations - before, ratio=ratio)
        total += seconds
    higher = [gap for gap in above if gap > 0]
    sys.stdout.write(
        f"  all norms: {total:.1f} s, {fastest / total:.1f} times as fast as the fastest peers; above the lowest peer in "
        f"{len(higher)} of {len(above)} cells, by at most {100 * max(above, default=0.0):.1f} points\n"
    )
    sys.stdout.flush()


@app.command()
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
    broken, baseline = _theirs(problem, plain_autoattack, norm, eps)
    _verdict("pyautoattack, plain", broken, broken, baseline, baseline=baseline)
    if robustbench:
        try:
            theirs, seconds = _theirs(problem, robustbench_benchmark, norm, eps)
            _verdict("robustbench benchmark", theirs, broken, seconds, baseline=baseline)
        except Exception as error:  # noqa: BLE001
            sys.stdout.write(f"  {'robustbench benchmark':24}cannot run: {type(error).__name__}: {error}\n")
    keep_freed_memory()
    problem = load(name, examples, prepared=True)
    for label, attack in (("suite autoattack", _ours), ("cascade", _cascade)):
        began = problem.clock()
        ours = attack(problem, norm, eps)
        _verdict(label, ours, broken, problem.clock() - began, baseline=baseline)


def _theirs(problem: Problem, peer: Pgd, norm: Norm, eps: float) -> tuple[Tensor, float]:
    """Which examples a peer's AutoAttack breaks, by our judge, and its seconds."""
    began = problem.clock()
    found = peer(problem.model, problem.images, problem.labels, norm, eps)
    seconds = problem.clock() - began
    problem.model.requires_grad_(False)
    results = problem.results()
    for begin in range(0, len(found), UNIT):
        _judge(problem, found[begin : begin + UNIT], begin, norm, eps=eps, results=results)
    return results.broken(norm, eps), seconds


def _verdict(label: str, ours: Tensor, theirs: Tensor, seconds: float, baseline: float) -> None:
    sys.stdout.write(
        f"  {label:24}robust {100 * float((~ours).double().mean()):6.2f} %{seconds:9.1f} s"
        f"{100 * seconds / baseline:8.1f} % of plain; only it breaks {int((ours & ~theirs).sum())}, "
        f"only plain breaks {int((theirs & ~ours).sum())}\n"
    )
    sys.stdout.flush()


def _units(problem: Problem, attack: Callable[[slice, AttackResults], None], norm: Norm, eps: float) -> Tensor:
    verdicts = []
    for begin in range(0, len(problem.images), UNIT):
        part = slice(begin, begin + UNIT)
        results = Problem(problem.name, problem.model, problem.images[part], problem.labels[part]).results()
        attack(part, results)
        verdicts.append(results.broken(norm, eps))
    return torch.cat(verdicts)


def _ours(problem: Problem, norm: Norm, eps: float) -> Tensor:
    def attack(part: slice, results: AttackResults) -> None:
        images, labels = problem.images[part], problem.labels[part]
        ids = torch.arange(len(images), device=images.device) + part.start
        for component in ("apgd-ce", "apgd-t", "fab-t", "square"):
            examples = Examples(problem.model, images, labels, ids, num_classes=10)
            run_attack(named_attack(component, {}), examples, norm, [eps], results=results)

    return _units(problem, attack, norm, eps)


def _cascade(problem: Problem, norm: Norm, eps: float) -> Tensor:
    parameters = resolve_suites(["autoattack_fast"])[0].file.parameters
    stages = tuple(Stage(**section) for section in parameters["stages"])

    def attack(part: slice, results: AttackResults) -> None:
        images, labels = problem.images[part], problem.labels[part]
        ids = torch.arange(len(images), device=images.device) + part.start
        Cascade(
            model=problem.model,
            images=images,
            labels=labels,
            example_ids=ids,
            norm=norm,
            eps=eps,
            stages=stages,
            results=results,
        ).run()

    return _units(problem, attack, norm, eps)


@app.command()
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
            seconds = _sweep(part, chosen, RADII[chosen], part.results(), suite=suite)
            sys.stdout.write(f"  {count:6} images, 5 radii {seconds:8.2f} s{1000 * seconds / count:8.2f} ms an image\n")
        few = min(1000, max(examples))
        part, largest = Problem(name, problem.model, problem.images[:few], problem.labels[:few]), RADII[chosen][-1]
        for count in radii:
            ladder = [largest * (step + 1) / count for step in range(count)]
            seconds = _sweep(part, chosen, ladder, part.results(), suite=suite)
            sys.stdout.write(f"  {few:6} images, {count:2} radii {seconds:8.2f} s\n")
        sys.stdout.flush()


@app.command()
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
                seconds = _sweep(problem, norm, [small[norm]], results)
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


if __name__ == "__main__":
    app()
