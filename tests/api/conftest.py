"""Images and a suite as small as can be: what is asked here is whether a call works, not what it finds."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

from bench.data import ImageDataset

SMALLEST_SUITE = """
schema_version = 1
name = "smallest"
version = 1
protocol = "cross_norm"
examples = 2

[[parameters.attacks]]
kind = "sweep"
name = "sweep"
steps = 1
losses = ["margin"]
patience = 1

[parameters.datasets.fashion_mnist]
reference = { linf = 0.1 }
radii = { linf = [0.1] }
"""


@pytest.fixture(scope="session")
def smallest_suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suite") / "smallest.toml"
    path.write_text(SMALLEST_SUITE)
    return path


@pytest.fixture
def few(fashion_test: ImageDataset) -> tuple[Tensor, Tensor]:
    """Three images and their labels."""
    return fashion_test.pixels(slice(0, 3)), fashion_test.labels[:3].clone()
