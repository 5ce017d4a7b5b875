from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench import evaluate
from bench.nets.state import changes, state_of


class Counts(nn.Module):
    """A net with something it does at each call."""

    def __init__(self, net: nn.Module, remember: Callable[[Counts, Tensor], object]) -> None:
        super().__init__()
        self.net, self.remember = net, remember
        self.calls, self.seen, self.answers = 0, [torch.zeros(1)], {"last": torch.zeros(1)}
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            self.remember(self, images.detach())
        logits: Tensor = self.net(images)
        return logits


MEMORIES: dict[str, Callable[[Counts, Tensor], object]] = {
    "calls": lambda net, images: setattr(net, "calls", net.calls + 1),
    "seen": lambda net, images: net.seen.append(images),
    "seen[0]": lambda net, images: net.seen[0].add_(images.sum()),
    "answers": lambda net, images: net.answers.__setitem__(str(float(images.sum())), images),
    "mean": lambda net, images: net.mean.add_(images.mean()),
    "net.1.weight": lambda net, images: net.net[1].weight.mul_(1.01),
}


def tiny() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(9, 4)), nn.BatchNorm1d(4)).eval()


@pytest.mark.parametrize("name", MEMORIES)
def test_whatever_a_call_changes_is_named(name: str) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 4))
    watched = Counts(net, MEMORIES[name])
    before = state_of(watched)
    watched(torch.ones(2, 1, 3, 3))
    assert name in changes(before, state_of(watched))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_net_that_only_answers_changes_nothing() -> None:
    for net in (tiny(), torch.jit.trace(tiny(), torch.ones(2, 1, 3, 3))):
        before = state_of(net)
        assert any("weight" in name for name in before)
        net(torch.ones(3, 1, 3, 3).requires_grad_(True)).sum().backward()
        assert changes(before, state_of(net)) == []


def test_a_run_says_that_its_net_remembers(tiny_suite: Path, standard: nn.Module) -> None:
    for memory, seen in ((MEMORIES["seen"], True), (lambda net, images: None, False)):
        findings = {
            finding.id: finding for finding in evaluate(Counts(standard, memory), tiny_suite, examples=4).findings
        }
        assert ("stateful" in findings) is seen
