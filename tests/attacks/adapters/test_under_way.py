from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.attacks.adapters import under_way as module
from bench.attacks.adapters.under_way import UnderWay
from bench.attacks.registry import NamedAttack, described, named_attack
from bench.attacks.running import Examples, run_attack
from bench.attacks.verification import AttackResults
from bench.core.threat import Norm
from bench.core.torch_state import random_numbers_of
from bench.data import ImageDataset

COUNT = 10
ATTACKS: dict[str, tuple[float, dict[str, Any]]] = {
    "torchattacks:PGD": (0.1, {"steps": 4, "relative_parameters": {"alpha": 0.5}}),
    "torchattacks:CW": (0.0, {"steps": 5}),
    "torchattacks:Square": (0.0, {"n_queries": 8}),
    "foolbox:LinfProjectedGradientDescentAttack": (0.1, {"steps": 3}),
    "pyautoattack:apgd-ce": (0.1, {"iterations": 4}),
}
"""Noise of the net, and the attack's keywords."""


class Stopping(nn.Module):
    """A net that counts its calls, draws noise of its own, and stops the process at one of them."""

    def __init__(self, net: nn.Module, noise: float = 0.0) -> None:
        super().__init__()
        self.net, self.noise, self.calls, self.last = net, noise, 0, 1 << 30

    def forward(self, images: Tensor) -> Tensor:
        if self.calls == self.last:
            raise KeyboardInterrupt
        self.calls += 1
        logits: Tensor = self.net(images)
        return logits + self.noise * torch.randn_like(logits)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVERY_SECONDS", 0.0)


def attacked(
    run: NamedAttack, net: nn.Module, data: ImageDataset, folder: Path | None, by: str = "this"
) -> AttackResults:
    """Two radii of the attack; what it comes to is kept in the folder."""
    images, labels = data.pixels(slice(0, COUNT)), data.labels[:COUNT]
    results = AttackResults.start(labels, labels)
    unit = None if folder is None else UnderWay(folder, "a unit", by)
    examples = Examples(net, images, labels, torch.arange(COUNT), num_classes=10, batch_size=6, under_way=unit)
    norm: Norm = "linf" if "linf" in run.attack.norms or not run.attack.norms else "l2"
    with random_numbers_of(torch.device("cpu"), "unit"):
        run_attack(run, examples, norm, [0.02, 0.05] if norm == "linf" else [0.5, 1.5], results=results)
    return results


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_that_was_stopped_goes_on_where_it_was_and_finds_the_same(
    standard: nn.Module, fashion_test: ImageDataset, tmp_path: Path, name: str
) -> None:
    noise, keywords = ATTACKS[name]
    run, whole = named_attack(name, keywords), Stopping(standard, noise)
    expected = attacked(run, whole, fashion_test, None)
    net = Stopping(standard, noise)
    for share in (0.3, 0.8):
        net.last = int(share * whole.calls)
        with pytest.raises(KeyboardInterrupt):
            attacked(run, net, fashion_test, tmp_path)
    net.last = 1 << 30
    found = attacked(run, net, fashion_test, tmp_path)
    assert net.calls <= whole.calls + 8, "only what a call has returned is judged again, in two batches twice"
    assert found.counters() == expected.counters()
    for norm in found.distances:
        assert torch.equal(found.distances[norm], expected.distances[norm])
        assert torch.equal(found.predictions[norm], expected.predictions[norm])


def twice(model: nn.Module, images: Tensor, labels: Tensor, *, eps: Tensor) -> Tensor:
    """Along the gradient of the gradient's length."""
    points = images.clone().requires_grad_(True)
    (first,) = torch.autograd.grad(model(points).exp().sum(), points, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), points)
    return (images + eps.to(images.dtype).view(-1, 1, 1, 1) * second.sign()).clamp(0, 1)


def unsteady(model: nn.Module, images: Tensor, labels: Tensor, *, eps: Tensor) -> Tensor:
    """Another step at every call."""
    steps.append(len(steps))
    points = images + 0.001 * steps[-1]
    for _ in range(3):
        model(points)
    return points


steps: list[int] = []


@pytest.mark.filterwarnings(  # of torch 2.6, where an exception ends a pass under a checkpoint
    "ignore:.*_checkpoint_without_reentrant_generator:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("function", [twice, unsteady])
def test_what_does_not_repeat_itself_or_takes_second_derivatives_is_computed(
    standard: nn.Module, fashion_test: ImageDataset, tmp_path: Path, function: Any
) -> None:
    run = NamedAttack(described(function, "mine", keyed=False, trusted=False), "mine", {})
    net = Stopping(standard)
    net.last = 4
    with pytest.raises(KeyboardInterrupt):
        attacked(run, net, fashion_test, tmp_path)
    net.last = 1 << 30
    before = steps[:]
    found = attacked(run, net, fashion_test, tmp_path)
    steps[:] = before
    assert torch.equal(attacked(run, net, fashion_test, None).distances["linf"], found.distances["linf"])


def test_damaged_files_and_those_of_other_images_are_not_used(
    standard: nn.Module, fashion_test: ImageDataset, tmp_path: Path
) -> None:
    run = named_attack("torchattacks:FGSM", {})
    expected = attacked(run, standard, fashion_test, tmp_path)
    files = sorted(tmp_path.rglob("*.pt"))
    assert len(files) == 2, "what a call returned takes the place of the net's answers"
    files[0].write_bytes(b"damaged")
    assert torch.equal(attacked(run, standard, fashion_test, tmp_path).distances["linf"], expected.distances["linf"])
    images, labels = fashion_test.images, fashion_test.labels
    turned = replace(
        fashion_test, store=images[:COUNT].flip(0), labels=labels[:COUNT].flip(0)
    )  # the same in another order
    for others in (turned, replace(fashion_test, store=images.flip(0), labels=labels.flip(0))):
        found = attacked(run, standard, others, tmp_path)
        assert torch.equal(found.distances["linf"], attacked(run, standard, others, None).distances["linf"])


def test_no_more_is_kept_than_memory_and_disk_may_hold(
    standard: nn.Module, fashion_test: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ON_DISK", 20_000)
    net, run = Stopping(standard), named_attack("torchattacks:PGD", {"steps": 9})
    net.last = 10
    with pytest.raises(KeyboardInterrupt):
        attacked(run, net, fashion_test, tmp_path)
    assert 20_000 < sum(path.stat().st_size for path in tmp_path.rglob("*.pt")) < 80_000


def test_what_another_torch_or_device_has_begun_begins_again_and_says_so(
    standard: nn.Module, fashion_test: ImageDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, whole = named_attack("torchattacks:PGD", {"steps": 4}), Stopping(standard)
    expected = attacked(run, whole, fashion_test, None)
    net = Stopping(standard)
    net.last = whole.calls // 2
    with pytest.raises(KeyboardInterrupt):
        attacked(run, net, fashion_test, tmp_path, "cpu, torch 1.0")
    net.calls, net.last = 0, 1 << 30
    found = attacked(run, net, fashion_test, tmp_path, "cpu, torch 2.0")
    assert net.calls == whole.calls and torch.equal(found.distances["linf"], expected.distances["linf"])
    assert [line.getMessage() for line in caplog.records if "begins again" in line.getMessage()] == [
        "an attack under way begins again, since other versions or another device began it: cpu, torch 1.0"
    ]
