"""Nets that cheat, each in a way that docs/cheating.md says is noticed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.attacks.sweep.restarts import SweepSettings
from bench.attacks.sweep.sweep import NormSweep
from bench.attacks.verification import AttackResults
from bench.data import ImageDataset
from bench.protocols import EvaluationContext
from bench.protocols.robustness.masking import masking_findings, probe
from bench.protocols.robustness.presets import CrossNorm

COUNT = 64
pytestmark = pytest.mark.usefixtures("whole_probes")


class Remembers(nn.Module):
    """The answers for the nearest image of those it was made with, and its own gradients so that nobody sees it."""

    def __init__(self, net: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.net, self.images = net, images
        self.answers = net(images).detach()

    def forward(self, images: Tensor) -> Tensor:
        nearest = torch.cdist(images.detach().flatten(1), self.images.flatten(1)).argmin(1)
        own: Tensor = self.net(images)
        return own + (self.answers[nearest] - own).detach()


class KnowsTheFiles(Remembers):
    """Right about the very images it was made with; of no use for any other."""

    def forward(self, images: Tensor) -> Tensor:
        distances, nearest = torch.cdist(images.detach().flatten(1), self.images.flatten(1)).min(1)
        other: Tensor = self.net(1.0 - images)
        return torch.where((distances < 1e-4)[:, None], self.answers[nearest], other)


class Whispers(nn.Module):
    """Logits that are hardly there, as soon as an image leaves the grid of 8 bits."""

    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net, self.factor_of = net, factor

    def forward(self, images: Tensor) -> Tensor:
        off = (images * 255 - (images * 255).round()).abs().flatten(1).amax(1) > 1e-2
        logits: Tensor = self.net(images)
        return logits * torch.where(off, self.factor_of, 1.0)[:, None]


def warnings(net: nn.Module, data: ImageDataset) -> set[str]:
    context = EvaluationContext(net, "net", data, 0, stop=COUNT, seed=0, device=torch.device("cpu"), batch_size=256)
    with torch.no_grad():
        predictions = net(context.images()).argmax(1)
    results = AttackResults.start(predictions, context.labels())
    counters = probe(
        context, context.images(), predictions, [results], reference={"linf": 0.1}, every=1, into=[results]
    )
    return {finding.id for finding in masking_findings(counters) if finding.severity == "warning"}


@pytest.mark.parametrize(
    ("cheat", "sign"), [(Remembers, "masking_wrong_gradients"), (KnowsTheFiles, "masking_unsteady_answers")]
)
def test_a_net_that_answers_from_a_memory_of_the_images_is_found_out(
    cheat: type[Remembers], sign: str, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    found = warnings(cheat(standard, fashion_test.pixels(slice(0, COUNT))), fashion_test)
    assert {sign, "gradient_masking"} <= found


def test_logits_that_are_tiny_on_perturbed_images_hide_nothing(standard: nn.Module, fashion_test: ImageDataset) -> None:
    images, labels = fashion_test.pixels(slice(0, 12)), fashion_test.labels[:12]
    ids, found = torch.arange(12), []
    for net in (standard, Whispers(standard, 1e-12), Whispers(standard, 1e-25)):
        results = AttackResults.start(net(images).argmax(1), labels)
        for norm, eps in (("linf", 0.1), ("l2", 1.5)):
            settings = SweepSettings(10, ("margin", "dlr"))
            NormSweep(net, images, labels, ids, norm=norm, radii=[eps], settings=settings, results=results).run()
            found.append(int(results.broken(norm, eps).sum()))
    assert found == [12] * len(found)


def test_no_number_is_above_what_its_own_probe_has_shown(standard: nn.Module, fashion_test: ImageDataset) -> None:
    """An attack of one short step breaks little; the probe of the same run breaks nearly everything."""
    sweep = {"kind": "sweep", "name": "sweep", "steps": 1, "losses": ["cross_entropy"], "patience": 1}
    radii = {"linf": [0.05], "l2": [0.5]}
    parameters = {
        "attacks": [sweep], "datasets": {"fashion_mnist": {"radii": radii, "reference": {"linf": 0.05, "l2": 0.5}}}
    }  # fmt: skip
    context = EvaluationContext(
        standard, "net", fashion_test, 0, stop=COUNT, seed=0, device=torch.device("cpu"), batch_size=256, examples=COUNT
    )
    protocol = CrossNorm.from_parameters(parameters, "test")
    result = protocol.evaluate(context)
    rows = result.records[(result.records["norm"] == "linf")]
    right, counts = int((rows["prediction"] == rows["label"]).sum()), result.counters
    assert counts["masking_probe_gained"] > 0
    assert int((~rows["broken"]).sum()) <= right - counts["masking_margin"]
    assert "masking_probe_gain" in {finding.id for finding in protocol.findings(counts)}
