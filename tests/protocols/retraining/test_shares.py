from __future__ import annotations

from pathlib import Path

import pytest

from bench.catalog.suites import read_suite
from bench.protocols import protocol_for
from tests.conftest import Bench


@pytest.mark.parametrize("shares", ["[0.5, 0.5005]", "[0.101, 0.104]", "[0.105, 0.106]"])
@pytest.mark.parametrize("direction", ["roar", "kar"])
def test_shares_that_come_to_the_same_are_refused(bench: Bench, tmp_path: Path, shares: str, direction: str) -> None:
    """The same nets twice, or two metrics of one name."""
    suite = tmp_path / "mine.toml"
    suite.write_text(f'extends = "{direction}_quick"\nname = "mine"\nversion = 1\n[parameters]\nshares = {shares}\n')
    refused = bench.refused("run", "--model", "standard", "--suite", suite, "--leaderboard", tmp_path / "board")
    first, second = shares[1:-1].split(", ")
    assert f"shares {first} and {second} both remove" in refused and "of the 784 pixels of fashion_mnist" in refused
    suite.write_text(suite.read_text().replace(shares, "[0.1, 0.12]"))
    protocol_for(read_suite(suite)).require_images((1, 28, 28), "fashion_mnist")
