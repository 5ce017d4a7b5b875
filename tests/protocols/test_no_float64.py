from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from bench.data import ImageDataset
from bench.protocols.base import EvaluationContext, Protocol
from bench.protocols.robustness import masking
from tests.no_float64 import MPS, StandIn
from tests.protocols.attribution_suites import ALL, make

HEAD = """
schema_version = 1
name = "tiny"
version = 1
protocol = "{0}"
examples = 20
[parameters]
"""
RADII = """
[parameters.datasets.fashion_mnist]
reference = { linf = 0.1, l2 = 1.5 }
radii = { linf = [0.05, 0.1], l2 = [1.5] }
"""
DISTANCES = """
steps = 4
losses = ["margin"]
targets = { l1 = 2 }
rungs = 3
ratio = 1.6
boundary = { steps = 4, targets = 2, restarts = 2, kept = 2 }
zero_norm_steps = 6
[parameters.datasets.fashion_mnist]
largest = { linf = 0.4, l2 = 6.0, l1 = 80.0 }
"""


def attacks(*names: str) -> str:
    return "".join(f"[[parameters.attacks]]\nattack = {name}\n" for name in names)


SUITES = {
    "each": HEAD.format("robustness") + attacks(
        '"sweep"\nsteps = 3\nlosses = ["margin"]\npatience = 1'
    ) + RADII,
    "chained": HEAD.format("robustness") + "chained = true\n" + attacks(
        '"cascade"', '"apgd-ce"\niterations = 5', '"fab-t"\niterations = 3', '"square"\nqueries = 20',
    ) + RADII,
    "minimum_norm": HEAD.format("minimum_norm") + DISTANCES,
}  # fmt: skip


def records(protocol: Protocol, model: nn.Module, data: ImageDataset, device: torch.device) -> pd.DataFrame:
    context = EvaluationContext(
        model, "net", data, 0, stop=5, seed=0, device=device, batch_size=4, examples=5, save_adversarial=True
    )
    return protocol.evaluate(context).records


@pytest.mark.parametrize("name", [*SUITES, "stability", "attack"])
def test_a_device_without_float64_gives_the_verdicts_of_the_cpu(
    tmp_path: Path, standard: nn.Module, fashion_test: ImageDataset, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    protocol = make(tmp_path, (SUITES | ALL)[name])
    for own in ("get_rng_state", "set_rng_state", "manual_seed", "synchronize"):
        monkeypatch.setattr(torch.mps, own, lambda *_: None)
    monkeypatch.setattr(masking, "_transfer_source", lambda _: standard)  # the one whose buffers the stand-in knows
    expected = records(protocol, standard, fashion_test, torch.device("cpu"))
    with StandIn(standard.buffers()):
        found = records(protocol, standard, fashion_test, MPS)
    # the cascade looks less often on a GPU, and so finds other images of the same verdict
    where = ["distance", "adversarial_prediction", "found_in_norm"] if name == "chained" else []
    pd.testing.assert_frame_equal(found.drop(columns=where), expected.drop(columns=where))
