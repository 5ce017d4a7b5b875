"""Data sets of one's own through the command line: any name, any of the accepted forms, radii as declared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from bench.catalog.models import entry_from_source, load_model
from bench.catalog.sources import SourceOptions
from bench.data.class_lists import IMAGENET100
from tests.conftest import Bench

NET = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, {outputs}))
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A data dir with `mine.npz`, and a net for it."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 12, 3), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", images=pixels, labels=np.arange(8) % 2)
    (tmp_path / "net.py").write_text(NET.format(outputs=2))
    return tmp_path


def arguments(root: Path, *more: str, dataset: str = "mine", outputs: int = 2) -> list[object]:
    options = ["--num-classes", outputs, "--data-dir", root, "--leaderboard", root / "board", "--device", "cpu"]
    return ["run", "--model", f"{root / 'net.py'}:make", "--dataset", dataset, *options, *more]


def test_a_data_set_of_ones_own_is_judged_at_the_radii_it_declares(bench: Bench, mine: Path) -> None:
    (mine / "mine.toml").write_text('schema_version = 1\ntest = "mine.npz"\n[radii]\nreference = { linf = 0.02 }\n')
    code, out, err = bench(*arguments(mine, "--suite", "cross_norm_quick"))
    assert code == 0, err
    rows = pd.read_csv(mine / "board" / "leaderboard.csv")
    robust = rows[rows["metric"] == "robust_accuracy"]
    assert set(rows["dataset"]) == {"mine"} and robust["eps"].tolist() == [0.02]
    assert "8 images" in out


@pytest.mark.parametrize(
    ("suite", "sides", "reason"),
    [
        (
            "attribution_stability_quick",
            (10, 12),
            "ssim needs images of at least 11x11 pixels, those of mine have 10x12",
        ),
        ("insertion_quick", (1, 12), "at least 2x2 pixels"),
    ],
)
def test_images_that_are_too_small_for_a_suite_are_refused_before_anything_is_written(
    bench: Bench, mine: Path, suite: str, sides: tuple[int, int], reason: str
) -> None:
    np.savez(mine / "mine.npz", images=np.zeros((4, *sides, 3), np.uint8), labels=np.arange(4) % 2)
    line = bench.refused(*arguments(mine, "--suite", suite))
    assert f"suite {suite}: " in line and reason in line
    assert not (mine / "board").exists()


def test_without_radii_the_line_says_how_to_give_them(bench: Bench, mine: Path) -> None:
    line = bench.refused(*arguments(mine, "--suite", "cross_norm_quick"))
    assert "unknown data set for this suite 'mine'" in line and 'radii = "fashion_mnist"' in line
    assert not (mine / "board").exists()


def test_what_trains_nets_names_the_data_sets_it_can_do_that_on(bench: Bench, mine: Path) -> None:
    train = ("train", "--recipe", "standard", "--dataset", "mine", "--data-dir", mine, "--output", mine / "zoo")
    for asked in (train, arguments(mine, "--suite", "roar_quick")):
        assert "on mine is not possible: nets are trained on fashion_mnist, " in bench.refused(*asked)


def test_a_net_of_all_of_imagenet_is_judged_on_imagenet_100(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET.format(outputs=1000))
    source = f"{tmp_path / 'net.py'}:make"
    entry = entry_from_source(source, "imagenet100", SourceOptions(label_map=Path("imagenet")))
    assert entry.card.expected_classes == 100
    images = torch.rand(2, 3, 16, 16)
    whole = load_model(entry_from_source(source, "imagenet", SourceOptions()))(images)
    assert torch.equal(load_model(entry)(images), whole[:, list(IMAGENET100.positions)])


def test_imagenet_100_runs_from_a_folder_of_imagenet(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET.format(outputs=100))
    for number, name in enumerate(IMAGENET100.names):
        folder = tmp_path / "imagenet" / "val" / name
        folder.mkdir(parents=True)
        Image.new("RGB", (40, 50), (number, 2 * number, 0)).save(folder / "x.JPEG")
    suites = ["--suite", "cross_norm_quick", "--examples", "3", "--batch-size", "2"]
    code, out, err = bench(*arguments(tmp_path, *suites, dataset="imagenet100", outputs=100))
    assert code == 0, err
    assert "L-inf 4/255, L2 3, L1 60" in " ".join(out.split())


def test_declared_data_sets_are_listed(bench: Bench, mine: Path) -> None:
    (mine / "other.toml").write_text('schema_version = 1\ntest = "mine.npz"\nclasses = ["1", "0"]\n')
    code, out, _ = bench("datasets", "--data-dir", mine)
    assert code == 0 and "other" in out and "imagenet100" in out
