"""What holds for all attribution protocols."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from bench.catalog.suites import read_suite
from bench.core.errors import BenchError
from bench.data import ImageDataset
from bench.leaderboard.labels import name as name_of
from bench.leaderboard.metrics import KEY_COLUMNS
from bench.leaderboard.table import read_leaderboard
from bench.nets import build_net
from bench.nets.logit_scale import ScaledLogits
from bench.protocols import protocol_for
from tests.conftest import Bench
from tests.protocols.attribution_suites import (
    AGREEMENT,
    ALL,
    ATTACK,
    HEAD,
    INSERTION,
    STABILITY,
    make,
    numbers,
    require_same_numbers,
    run,
)


@pytest.mark.parametrize("name", ALL)
def test_numbers_do_not_depend_on_batches_or_units(
    name: str, tmp_path: Path, lga: nn.Module, fashion_test: ImageDataset
) -> None:
    protocol = make(tmp_path, ALL[name])
    whole = run(protocol, lga, fashion_test, stop=12).records
    parts = [
        run(protocol, lga, fashion_test, begin, stop=end, batch_size=4).records for begin, end in ((0, 5), (5, 12))
    ]
    require_same_numbers(whole, pd.concat(parts, ignore_index=True))


ALIGNMENT = 'attributions = [{ name = "gradient" }]\n'
FAITHFULNESS = ALIGNMENT + "infidelity = { draws = 3, side = 0.3 }\ninsertion = { steps = 4 }\n"
IN_LOGITS = {
    "stability": STABILITY, "insertion": re.sub(r"(attack|radii) = .*\n", "", INSERTION),
    "alignment": HEAD.format(name="gradient_alignment") + ALIGNMENT,
    "faithfulness": HEAD.format(name="faithfulness") + FAITHFULNESS,
}  # fmt: skip


@pytest.mark.parametrize("name", IN_LOGITS)
def test_numbers_are_those_of_the_nets_own_logits(
    name: str, tmp_path: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    """Norms of gradients, probabilities and the raw infidelity were those of the logits as the attacks see them."""
    protocol, small = make(tmp_path, IN_LOGITS[name]), ScaledLogits(standard, 2.0**-6)
    plain, usual = (
        run(protocol, net, fashion_test, stop=4).records for net in (nn.Sequential(small), ScaledLogits(small, 2.0**6))
    )
    pd.testing.assert_frame_equal(numbers(plain), numbers(usual))


@pytest.mark.parametrize("name", ALL)
def test_the_same_run_gives_the_same_numbers_and_a_seed_other_ones(
    name: str, tmp_path: Path, lga: nn.Module, fashion_test: ImageDataset
) -> None:
    protocol = make(tmp_path, ALL[name])
    first, again, other = (run(protocol, lga, fashion_test, stop=6, seed=seed).records for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert not numbers(first).equals(numbers(other))


@pytest.mark.parametrize("name", ALL)
def test_three_channels_and_another_size_work(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = ImageDataset(
        "cats", "test", torch.randint(0, 256, (6, 3, 16, 24), dtype=torch.uint8), torch.arange(6) % 3,
        class_names=("a", "b", "c"), source="made",
    )  # fmt: skip
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3),
    ).eval().requires_grad_(False)  # fmt: skip
    protocol = make(tmp_path, ALL[name])
    protocol.require_dataset("cats")
    records = run(protocol, net, data, stop=6).records
    assert set(records["example_id"]) == set(range(6))
    assert protocol.metrics("cats", records)


@pytest.mark.parametrize("name", ALL)
def test_a_dead_net_gives_defined_numbers_and_a_warning(name: str, tmp_path: Path, fashion_test: ImageDataset) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 26 * 26, 10))
    nn.init.constant_(net[0].bias, -100.0)
    net = net.eval().requires_grad_(False)
    protocol = make(tmp_path, ALL[name])
    result = run(protocol, net, fashion_test, stop=4)
    metrics = protocol.metrics("fashion_mnist", result.records)
    assert all(np.isfinite(metric.value) for metric in metrics)
    assert all(np.isfinite([one.ci_low, one.ci_high]).all() for one in metrics if one.n_examples > 1)
    assert {
        metric.value
        for metric in metrics
        if name_of(metric.key) in ("stability/cosine/gradient", "saps/cosine/gradient")
    } <= {0.0}
    if name != "insertion":
        assert "empty_maps_gradient" in {finding.id for finding in result.findings}


class BlindAtBlack(nn.Module):
    """A net whose input gradient is NaN at the pixels of `where` that are black."""

    def __init__(self, net: nn.Module, where: slice) -> None:
        super().__init__()
        self.net, self.where = net, where

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.net(images) + 0 * images[:, 0, self.where, 14].sqrt().sum(1, keepdim=True)


OF_THE_CLEAN_MAP = {
    "stability": ("stability/cosine/gradient", "uniform"),
    "attack": ("taps_clean/cosine/gradient", "frame"),
    "insertion": ("insertion/gradient", ""),
    "agreement": ("agreement/spearman/gradient/input_x_gradient", ""),
}


@pytest.mark.parametrize("name", ALL)
def test_images_whose_maps_are_not_finite_are_left_out_with_a_warning(
    name: str, tmp_path: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    protocol = make(tmp_path, ALL[name].replace(', { name = "smoothgrad", samples = 2 }', ""))
    black = fashion_test.images[:6, 0, 14, 14] == 0
    assert 0 < int(black.sum()) < 6
    result = run(protocol, BlindAtBlack(standard, slice(14, 15)), fashion_test, stop=6)
    plain = run(protocol, standard, fashion_test, stop=6).records
    seen = plain["example_id"].isin(torch.arange(6)[~black].tolist())
    found, expected = (
        [
            one
            for one in protocol.metrics("fashion_mnist", records)
            if (name_of(one.key), one.key.attack) == OF_THE_CLEAN_MAP[name]
        ]
        for records in (result.records, plain[seen])
    )
    assert found and [one.n_examples for one in found] == [int((~black).sum())] * len(found)
    assert [one.value for one in found] == pytest.approx([one.value for one in expected], abs=1e-4)
    (warning,) = [finding for finding in result.findings if finding.id == "non_finite_maps"]
    blind = re.search(r"(\d) of 6 images under gradient", warning.evidence)
    assert blind is not None and int(black.sum()) <= int(blind[1]) < 6  # an attack may reach black by itself
    assert not any(finding.id.startswith("empty_maps") for finding in result.findings)


@pytest.mark.parametrize("name", ALL)
def test_a_method_without_one_finite_map_has_no_metric(
    name: str, tmp_path: Path, standard: nn.Module, fashion_test: ImageDataset
) -> None:
    protocol = make(tmp_path, ALL[name])
    result = run(protocol, BlindAtBlack(standard, slice(0, 28)), fashion_test, stop=3)
    metrics = protocol.metrics("fashion_mnist", result.records)
    assert all(np.isfinite(metric.value) for metric in metrics)
    assert all(np.isfinite([one.ci_low, one.ci_high]).all() for one in metrics if one.n_examples > 1)
    similar = (
        "stability",
        "stability_correct",
        "saps",
        "saps_correct",
        "taps",
        "insertion",
        "deletion",
        "gradient_norm",
    )
    names = [name_of(one.key).split("/") for one in metrics]
    assert not [one for one in names if one[0] in similar and "gradient" in "/".join(one)]


@pytest.mark.parametrize("name", ALL)
def test_a_net_that_is_in_train_mode_is_judged_in_eval_mode(
    name: str, tmp_path: Path, fashion_test: ImageDataset
) -> None:
    torch.manual_seed(0)
    common = {"in_channels": 1, "image_size": 28, "num_classes": 10, "mean": [0.3], "std": [0.3]}
    net = build_net("simple_cnn", common).requires_grad_(False)
    protocol = make(tmp_path, ALL[name].replace("steps = 4", "steps = 1"))
    expected = run(protocol, net.eval(), fashion_test, stop=3).records
    found = run(protocol, net.train(), fashion_test, stop=3).records
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize("name", ALL)
def test_the_command_line_prints_and_appends_every_metric(name: str, tmp_path: Path, bench: Bench) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text(ALL[name])
    board = tmp_path / "board"
    code, out, _ = bench("run", "--model", "standard", "--suite", suite, "--examples", 4, "--leaderboard", board)
    rows = read_leaderboard(board)
    assert code == 0 and "95 % interval" in out
    assert len(rows) > 4 and rows["value"].notna().all()
    for _, row in rows.iterrows():
        assert row["ci_low"] <= row["value"] <= row["ci_high"] and 1 <= row["n_examples"] <= 4
    assert not rows.duplicated([*KEY_COLUMNS]).any()
    code, out, _ = bench("leaderboard", "--leaderboard", board, "--wide")
    assert code == 0 and out.count("fashion_mnist (test, 4 images)") == 1


MISTAKES = {
    "unknown attribution": (STABILITY.replace('"gradient"', '"gradeint"'), "gradeint"),
    "attribution twice": (STABILITY.replace('"smoothgrad", samples = 2', '"gradient"'), "attributions need names that differ"),
    "unknown measure": (STABILITY.replace('"cosine"', '"cosin"'), "cosine"),
    "foreign parameter": (STABILITY.replace("samples = 2", "samples = 2, steps = 3"), "unknown parameter of attribution method smoothgrad 'steps'"),
    "top share above one": (STABILITY + "top_share = 1.5\n", "less than or equal to 1"),
    "unknown attack": (ATTACK.replace('"frame"', '"fame"'), "frame"),
    "no steps": (ATTACK.replace("steps = 4", "steps = 0"), "greater than 0"),
    "radii without attack": (INSERTION.replace("attack = {", "# attack = {"), "both an attack and radii"),
    "one attribution": (AGREEMENT.replace(', { name = "input_x_gradient" }, { name = "grad_cam" }', ""), "two attributions"),
    "check without spearman": (AGREEMENT.replace('"spearman", ', ""), "judged by spearman"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_suite_is_explained(mistake: str, tmp_path: Path) -> None:
    content, expected = MISTAKES[mistake]
    path = tmp_path / "suite.toml"
    path.write_text(content)
    with pytest.raises(BenchError) as caught:
        protocol_for(read_suite(path))
    assert expected in str(caught.value) and str(path) in str(caught.value)
