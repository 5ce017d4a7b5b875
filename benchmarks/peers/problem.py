"""One model's problem: images, a clock, the same judge for all, and our sweep as a suite has it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from peers.attacks import UNIT
from torch import Tensor, nn

from bench.attacks.running import Examples, run_attack
from bench.attacks.verification import AttackResults, verify
from bench.catalog.models import load_model, resolve_models
from bench.catalog.sources import SourceOptions
from bench.catalog.suites import resolve_suites
from bench.core.threat import Norm
from bench.data import load_split
from bench.data.loading import Split
from bench.nets.preparation import prepare_net
from bench.protocols.robustness.presets import SweepAttack

RADII: dict[Norm, list[float]] = {
    "linf": [0.02, 0.05, 0.1, 0.15, 0.2], "l2": [0.5, 1.0, 1.5, 2.0, 2.5], "l1": [5.0, 10.0, 15.0, 20.0, 30.0],
}  # fmt: skip
REFERENCE: dict[Norm, float] = {"linf": 0.1, "l2": 1.5, "l1": 15.0}


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

    def take(self, part: slice) -> Problem:
        return Problem(self.name, self.model, self.images[part], self.labels[part])

    def clock(self) -> float:
        if self.images.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()


def load(
    name: str, examples: int, *, prepared: bool = False, split: Split = "test", data_dir: Path | None = None,
    dataset: str = "fashion_mnist", first: int = 0, options: SourceOptions | None = None,
) -> Problem:  # fmt: skip
    """The images from `first` on, and a model by its name or its source, which `options` are about."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = load_split(dataset, split, data_dir=data_dir)
    model = load_model(resolve_models([name], dataset, options=options)[0], device)
    if prepared:
        prepare_net(model)
    part = slice(first, first + examples)
    return Problem(name, model, data.pixels(part).to(device), data.labels[part].to(device))


def judge(problem: Problem, found: Tensor, begin: int, norm: Norm, eps: float, results: AttackResults) -> None:
    clean, labels = problem.images[begin : begin + UNIT], problem.labels[begin : begin + UNIT]
    radius = clean.new_full((len(clean),), eps)
    verified, distances, predictions = verify(
        problem.model, found.detach().float(), clean, labels, eps=radius, norm=norm
    )
    chosen = verified.nonzero().squeeze(1)
    results.record(
        chosen.cpu() + begin, norm, {key: value[chosen] for key, value in distances.items()}, predictions[chosen]
    )


def sweep(problem: Problem, norm: Norm, radii: list[float], results: AttackResults, suite: str = "cross_norm") -> float:
    """Seconds of the sweep with the suite's settings."""
    ids = torch.arange(len(problem.images), device=problem.images.device)
    section = resolve_suites([suite])[0].file.parameters["attacks"][0]
    attack = SweepAttack.model_validate(section).entry().prepared(None)
    examples = Examples(problem.model, problem.images, problem.labels, ids, num_classes=10)
    began = problem.clock()
    run_attack(attack, examples, norm, radii, results=results)
    return problem.clock() - began
