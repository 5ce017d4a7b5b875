from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType

import pytest
import torch
from torch import Tensor, nn

from bench import evaluate
from bench.data import ImageDataset
from bench.protocols.robustness.claims import claim_findings


class LooksWhoAsks(nn.Module):
    """An ordinary net to whoever attacks it; to whoever verifies, the answer for the nearest image it was shown."""

    def __init__(self, net: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.net, self.images = net, images

    def forward(self, images: Tensor) -> Tensor:
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame.f_code.co_name != "verify":
            frame = frame.f_back
        if frame is not None:
            images = self.images[torch.cdist(images.flatten(1), self.images.flatten(1)).argmin(1)]
        logits: Tensor = self.net(images)
        return logits


class Silent(nn.Module):
    """No number for any image that is not on the grid of 8 bits."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        off = (images * 255 - (images * 255).round()).abs().flatten(1).amax(1) > 1e-2
        return torch.where(off[:, None], torch.nan, self.net(images))


def test_a_net_that_answers_the_verification_alone_right_is_found_out(
    tiny_suite: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    net = LooksWhoAsks(standard, fashion_test.pixels(slice(0, 20)))
    result = evaluate(net, tiny_suite)
    assert result.value("union_accuracy") > 0.5, "it cheats, and"
    findings = {finding.id: finding for finding in result.findings}
    assert "rejected_claims" in findings
    assert str(result.counters["claims"]) in findings["rejected_claims"].evidence


def test_answers_that_are_no_numbers_are_a_finding_and_an_ordinary_net_has_none(
    tiny_suite: Path, standard: nn.Module
) -> None:
    found = {
        name: {finding.id for finding in evaluate(net, tiny_suite, examples=10).findings}
        for name, net in (("silent", Silent(standard)), ("plain", standard))
    }
    assert "non_finite_logits" in found["silent"]
    assert not {"non_finite_logits", "rejected_claims"} & found["plain"]


@pytest.mark.parametrize(
    ("claims", "rejected", "seen"), [(100, 5, False), (100, 6, True), (300, 6, False), (300, 7, True), (6, 6, True)]
)
def test_a_handful_of_rejected_claims_is_rounding(claims: int, rejected: int, seen: bool) -> None:
    counters = {"claims": claims, "rejected_claims": rejected}
    assert all(bool(claim_findings(counters, one)) is seen for one in ("float32", "float32-compiled"))
    assert not claim_findings(counters, "bfloat16"), "which claims what it is not sure of"
