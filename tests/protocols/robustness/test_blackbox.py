from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.data import ImageDataset
from bench.protocols import EvaluationContext, UnitResult
from bench.protocols.robustness.presets import BlackBox

PARAMETERS = {
    "queries": 40, "decision_steps": 2, "datasets": {"fashion_mnist": {"reference": {"linf": 0.2, "l2": 2.5, "l1": 15.0}}}
}  # fmt: skip


class Undifferentiable(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images.detach())
        return logits


def evaluate(model: nn.Module, data: ImageDataset, batch_size: int = 256, count: int = 16) -> UnitResult:
    context = EvaluationContext(
        model, "net", data, 0, stop=count, seed=0, device=torch.device("cpu"), batch_size=batch_size
    )
    return BlackBox.from_parameters(PARAMETERS, "test").evaluate(context)


def test_a_net_without_gradients_is_broken_all_the_same(standard: nn.Module, fashion_test: ImageDataset) -> None:
    records = evaluate(Undifferentiable(standard), fashion_test).records
    verdict = records[(records["attack"] == "blackbox") & (records["norm"] == "linf")]
    assert verdict["broken"].mean() > 0.5
    for norm in ("linf", "l2"):
        own = records[(records["attack"] == "hop_skip_jump") & (records["norm"] == norm)]
        assert own["broken"].any(), f"HopSkipJump breaks some in {norm} that Square left"


def test_verdicts_repeat_whatever_the_global_generator(standard: nn.Module, fashion_test: ImageDataset) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = evaluate(standard, fashion_test, count=8)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert first.records["broken"].equals(evaluate(standard, fashion_test, count=8).records["broken"])
    assert first.counters["rejected_claims"] == 0


class Unsteady(nn.Module):
    """Another answer each time that it is asked."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :10] + 0.1 * torch.randn(len(images), 10)


def test_a_net_whose_answers_change_is_judged_and_named(fashion_test: ImageDataset) -> None:
    """Foolbox ends where what it starts from does not fool the net a second time."""
    found = evaluate(Unsteady(), fashion_test)
    assert set(found.records["norm"]) == {"linf", "l2", "l1"}
    assert "random_outputs" in {finding.id for finding in found.findings}
