from __future__ import annotations

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import bench


class DropoutLeftOn(nn.Module):
    """A net that forgot `training=self.training`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.linear = nn.Conv2d(1, 2, 7, 3), nn.Linear(128, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(F.dropout(self.convolution(images).relu().flatten(1)))


@pytest.mark.parametrize("suite", ["union", "attribution_stability_quick", "insertion_quick"])
def test_a_random_net_is_found_with_one_image(suite: str) -> None:
    result = bench.evaluate(DropoutLeftOn(), suite, examples=1, device="cpu")
    assert "random_outputs" in {finding.id for finding in result.findings}


def test_a_random_net_has_one_result_for_one_seed() -> None:
    records = []
    for seed in (0, 0, 1):
        records.append(bench.evaluate(DropoutLeftOn(), "insertion_quick", examples=2, seed=seed, device="cpu").records)
    pd.testing.assert_frame_equal(records[0], records[1])
    assert not records[0]["area"].equals(records[2]["area"])
