from __future__ import annotations

from pathlib import Path

import pytest
import torch
from scipy import stats
from torch import nn

import bench
from bench.attributions.heat_maps import heat_maps
from bench.attributions.registry import attribute, find_method
from bench.data import ImageDataset
from tests.protocols.attribution_suites import AGREEMENT, make, run, values


def test_agreement_is_that_of_the_maps(tmp_path: Path, standard: nn.Module, fashion_test: ImageDataset) -> None:
    protocol = make(tmp_path, AGREEMENT)
    records = run(protocol, standard, fashion_test, stop=6).records
    pairs = records[records["check"] == "agreement"]
    assert set(zip(pairs["attribution"], pairs["other"], strict=True)) == {
        ("gradient", "input_x_gradient"), ("gradient", "grad_cam"), ("input_x_gradient", "grad_cam")
    }  # fmt: skip
    images, labels = fashion_test.pixels(slice(0, 6)), fashion_test.labels[:6]
    first, second = (
        heat_maps(attribute(standard, images, labels, find_method(name))) for name in ("gradient", "grad_cam")
    )
    rows = pairs[(pairs["attribution"] == "gradient") & (pairs["other"] == "grad_cam")].set_index("example_id")
    for row in range(6):
        expected = stats.spearmanr(first[row].flatten(), second[row].flatten()).statistic
        assert rows.loc[row, "spearman"] == pytest.approx(expected, abs=1e-3)


def test_a_map_that_does_not_change_with_random_weights_is_flagged_and_the_gradient_is_not(
    tmp_path: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    protocol = make(tmp_path, AGREEMENT)
    result = run(protocol, standard, fashion_test)
    flagged = {finding.id for finding in result.findings}
    assert "insensitive_input_x_gradient" in flagged and "insensitive_gradient" not in flagged
    found = values(protocol, result.records)
    stages = [
        found[f"randomisation/spearman/gradient/{stage}", "", None] for stage in ("linear2", "linear1", "conv2", "all")
    ]
    assert stages[0] > stages[1] > 0.5 * stages[3] and max(stages) < 0.5
    assert found["randomisation/spearman/input_x_gradient/all", "", None] > 0.7


def test_in_a_suite_lrp_epsilon_of_a_bias_free_relu_net_is_input_times_gradient(tmp_path: Path) -> None:
    """One channel, on which the suites' prepared nets have a convolution of their own."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 5, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 4, 3, bias=False), nn.ReLU(), nn.Flatten(),
        nn.Linear(4 * 36, 10, bias=False),
    )  # fmt: skip
    (tmp_path / "suite.toml").write_text(
        AGREEMENT.replace(', { name = "grad_cam" }', ', { name = "lrp_epsilon", epsilon = 1e-9 }')
    )
    result = bench.evaluate(net, tmp_path / "suite.toml", examples=6)
    for measure in ("spearman", "top_k"):
        assert result.value(f"agreement/{measure}/input_x_gradient/lrp_epsilon") > 0.999
        assert result.value(f"agreement/{measure}/gradient/lrp_epsilon") < 0.9
