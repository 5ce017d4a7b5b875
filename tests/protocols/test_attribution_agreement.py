from __future__ import annotations

from pathlib import Path

import pytest
from scipy import stats
from torch import nn

from bench.attribution.heat_maps import heat_maps
from bench.attribution.methods import METHODS, attribute
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
        heat_maps(attribute(standard, images, labels, METHODS[name]())) for name in ("gradient", "grad_cam")
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
