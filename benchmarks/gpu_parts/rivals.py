"""(b) AutoAttack in L-inf by this project, pyautoattack and torchattacks: the same net, images and judge."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.attacks.registry import named_attack
from bench.attacks.running import Examples, run_attack
from bench.attacks.verification import AttackResults, verify
from bench.catalog.models import load_model, resolve_models
from bench.catalog.suites import resolve_suites
from bench.core.precision import float32_products
from bench.data import ImageDataset
from bench.data.specs import DATASETS
from bench.nets import build_net
from bench.nets.preparation import prepare_net
from benchmarks.gpu_parts.ledger import Ledger, Row, Sizes, clock

MOST_GRADIENTS = 4500
"""What plain AutoAttack spends on an image that stands: APGD 1,000, FAB 1,800 passes, Square 5,000 queries."""
Attack = Callable[["Contest"], Tensor]


@dataclass(frozen=True, slots=True)
class Contest:
    """A net, and images that it classifies right: by their labels where it was trained, else by what it says."""

    net: nn.Module
    images: Tensor
    labels: Tensor
    batch_size: int
    eps: float

    @property
    def device(self) -> torch.device:
        return self.images.device


def trained_or_new(name: str, sizes: Sizes, models: Path) -> tuple[nn.Module, bool]:
    """The net of a name: as `resnet18_at_linf` and its like were trained here, or with initial weights."""
    folder = models / "cifar10" / f"{name}_at_linf"
    if folder.is_dir():
        return load_model(resolve_models([str(folder.resolve())])[0], sizes.device), True
    torch.manual_seed(0)
    architecture, parameters = sizes.nets[name]
    net = build_net(architecture, {**DATASETS["cifar10"].net_parameters, **parameters})
    return net.eval().requires_grad_(False).to(sizes.device), False


def rivals(ledger: Ledger, sizes: Sizes, data: ImageDataset, models: Path) -> None:
    with float32_products():
        for position, name in enumerate(sizes.nets):
            contest, rate = _contest(ledger, sizes, data, models, name)
            if rate is None:
                continue
            slot = ledger.time_left() / (3.0 * (len(sizes.nets) - position))
            count = int(min(max(rate * slot / MOST_GRADIENTS, sizes.fewest_images), len(contest.images)))
            few = contest.images[:count], contest.labels[:count]
            contest = Contest(contest.net, *few, min(contest.batch_size, count), contest.eps)
            for rival, attack in RIVALS.items():
                ledger.measure(
                    f"{name}, {rival}", lambda contest=contest, attack=attack, rate=rate: _race(contest, attack, rate)
                )


def _contest(ledger: Ledger, sizes: Sizes, data: ImageDataset, models: Path, name: str) -> tuple[Contest, float | None]:
    net, trained = trained_or_new(name, sizes, models)
    prepare_net(net)
    images = data.pixels(slice(0, sizes.some_images)).to(sizes.device)
    with torch.no_grad():
        said = torch.cat([net(part).argmax(1) for part in images.split(sizes.bare_batch)])
    right = said == data.labels[: len(images)].to(sizes.device) if trained else torch.ones_like(said, dtype=torch.bool)
    contest = Contest(net, images[right], said[right], sizes.bare_batch, sizes.eps)
    bare = ledger.measure(f"{name}, bare passes", lambda: {"trained": trained} | bare_passes(contest))
    return contest, None if bare is None else float(bare["gradients/s"])


def bare_passes(contest: Contest) -> Row:
    """A forward and backward pass to the images, of the prepared net, at full batches."""
    images = contest.images[: contest.batch_size]

    def once() -> None:
        points = images.detach().requires_grad_(True)
        torch.autograd.grad(contest.net(points).sum(), points)

    once()
    began, count = clock(contest.device), 0
    while count < 3 or (clock(contest.device) - began < 2.0 and count < 50):
        once()
        count += 1
    return {"images": len(images), "gradients/s": count * len(images) / (clock(contest.device) - began)}


def _race(contest: Contest, attack: Attack, rate: float) -> Row:
    passes = _Passes(contest.net.requires_grad_(False))
    began = clock(contest.device)
    with passes.counted(), utilisation(contest.device) as used:
        broken = attack(contest)
    seconds = clock(contest.device) - began
    # a query is a third of a gradient
    bare = (passes.gradients + passes.queries / 3.0) / rate
    return {
        "images": len(contest.images), "s": seconds, "images/s": len(contest.images) / seconds,
        "robust": 1.0 - float(broken.double().mean()), "gradients": passes.gradients, "queries": passes.queries,
        "share of bare passes": bare / seconds, **used,
    }  # fmt: skip


class _Passes:
    """Counts images that go through a net for a gradient, and without one."""

    def __init__(self, net: nn.Module) -> None:
        self.net, self.gradients, self.queries = net, 0, 0

    @contextmanager
    def counted(self) -> Any:
        def called(_: nn.Module, given: tuple[Any, ...]) -> None:
            wanted = torch.is_grad_enabled() and given[0].requires_grad
            self.gradients += len(given[0]) if wanted else 0
            self.queries += 0 if wanted else len(given[0])

        hook = self.net.register_forward_pre_hook(called)
        try:
            yield
        finally:
            hook.remove()


@contextmanager
def utilisation(device: torch.device) -> Any:
    """How busy the GPU is, on average, as it says itself a few times a second; nothing on a CPU."""
    found: Row = {}
    seen: list[int] = []
    over = threading.Event()

    def look() -> None:
        with suppress(Exception):  # no NVML here
            while not over.wait(0.2):
                seen.append(torch.cuda.utilization(device))

    watch = threading.Thread(target=look, daemon=True)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        watch.start()
    try:
        yield found
    finally:
        over.set()
        if seen:
            found["busy, %"] = sum(seen) / len(seen)
        if device.type == "cuda":
            found["memory, MB"] = torch.cuda.max_memory_allocated(device) / 1e6


def _ours(contest: Contest, *, fast: bool) -> Tensor:
    results = AttackResults.start(contest.labels.cpu(), contest.labels.cpu())
    ids = torch.arange(len(contest.images), device=contest.device)
    examples = Examples(contest.net, contest.images, contest.labels, ids, num_classes=10, batch_size=contest.batch_size)
    stages = resolve_suites(["autoattack_fast"])[0].file.parameters["stages"]
    attacks = (
        [("cascade", {"stages": stages})] if fast else [(one, {}) for one in ("apgd-ce", "apgd-t", "fab-t", "square")]
    )
    for name, keywords in attacks:
        run_attack(named_attack(name, keywords), examples, "linf", [contest.eps], results=results)
    return results.broken("linf", contest.eps)


def _judged(contest: Contest, found: Tensor) -> Tensor:
    contest.net.requires_grad_(False)
    radius = contest.images.new_full((len(found),), contest.eps)
    parts = [
        verify(contest.net, *one, eps=size, norm="linf")[0]
        for *one, size in zip(
            *(values.split(contest.batch_size) for values in (found.detach().float(), contest.images, contest.labels)),
            radius.split(contest.batch_size), strict=True,
        )
    ]  # fmt: skip
    return torch.cat(parts)


def _pyautoattack(contest: Contest) -> Tensor:
    """As a user runs it: a net whose parameters ask for gradients."""
    from pyautoattack import AutoAttack

    attack = AutoAttack(contest.net.requires_grad_(True), norm="Linf", eps=contest.eps, seed=0, device=contest.device)
    return _judged(
        contest, attack.run_standard_evaluation(contest.images, contest.labels, batch_size=contest.batch_size)[0]
    )


def _torchattacks(contest: Contest) -> Tensor:
    from bench.attacks.adapters.torchattacks import import_torchattacks

    attack = import_torchattacks().AutoAttack(
        contest.net.requires_grad_(True), norm="Linf", eps=contest.eps, seed=0, n_classes=10
    )
    parts = zip(contest.images.split(contest.batch_size), contest.labels.split(contest.batch_size), strict=True)
    return _judged(contest, torch.cat([attack(*part) for part in parts]))


RIVALS: dict[str, Attack] = {
    "suite autoattack": lambda contest: _ours(contest, fast=False),
    "suite autoattack_fast": lambda contest: _ours(contest, fast=True),
    "pyautoattack": _pyautoattack,
    "torchattacks": _torchattacks,
}
