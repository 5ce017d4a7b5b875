from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bench.catalog.label_maps import read_label_map
from bench.core.errors import BenchError
from tests.conftest import Bench

CLASSES = ("mango", "apple", "Zebra")
"""The colour of class k is channel 2 - k of the image, and output 2 - k of the net."""
NET = """
import torch
from torch import nn

class Colours(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return images.mean((2, 3)) * self.scale

def make():
    return Colours()
"""


def folder(root: Path) -> None:
    for number, name in enumerate(CLASSES):
        (root / "pets" / "test" / name).mkdir(parents=True)
        Image.fromarray(colour(number)).save(root / "pets" / "test" / name / "0.png")


def colour(number: int) -> np.ndarray:
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 2 - number] = 200
    return image


def declared(root: Path) -> None:
    folder(root)
    (root / "pets.toml").write_text(f'schema_version = 1\ntest = "pets/test"\nclasses = {list(CLASSES)}\n')


def archive(root: Path) -> None:
    images = np.stack([colour(number) for number in range(3)])
    np.savez(root / "pets.npz", images=images, labels=np.arange(3), class_names=np.array(CLASSES))


@pytest.mark.parametrize("layout", [folder, declared, archive])
def test_a_label_map_is_read_in_the_data_sets_own_order(bench: Bench, tmp_path: Path, layout: object) -> None:
    assert callable(layout)
    layout(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "map.json").write_text(json.dumps({"Zebra": 0, "apple": 1, "mango": 2}))
    code, _, err = bench(
        "run", "--model", f"{tmp_path / 'net.py'}:make", "--dataset", "pets", "--data-dir", tmp_path, "--label-map",
        tmp_path / "map.json", "--suite", brightness(tmp_path), "--leaderboard", tmp_path / "board", "--workers", 1,
    )  # fmt: skip
    assert code == 0, err
    rows = pd.read_csv(tmp_path / "board" / "leaderboard.csv")
    assert rows.loc[rows["metric"] == "clean_accuracy", "value"].tolist() == [1.0]


def brightness(root: Path) -> Path:
    path = root / "bright.toml"
    path.write_text(
        'schema_version = 1\nname = "bright"\nversion = 1\nprotocol = "corruptions"\nexamples = 3\n'
        '[parameters]\ncorruptions = ["brightness"]\n'
    )
    return path


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"zebra": 0, "apple": 1, "mango": 2}', "unknown class of pets in .*did you mean Zebra"),
        ('{"ZEBRA": 0, "apple": 1, "mango": 2}', "did you mean Zebra"),
        ('{"apple": 1, "mango": 2}', "no output for class 'Zebra'"),
        ('{"Zebra": 0, "apple": 1, "mango": 2, "apple": 0}', "'apple' stands in it twice"),
        ('{"Zebra": 0, "apple": true, "mango": 2}', "whole number"),
        ('{"Zebra": 0, "apple": 1e0, "mango": 2}', "whole number"),
        ("[" * 5000, "cannot read the label map"),
    ],
)
def test_a_name_that_the_data_set_does_not_have_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "map.json").write_text(content)
    with pytest.raises(BenchError, match=reason):
        read_label_map(tmp_path / "map.json", CLASSES, "pets")


def test_two_classes_of_one_name_have_no_label_map(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text('{"crane": 0}')
    with pytest.raises(BenchError, match="two classes called 'crane'"):
        read_label_map(tmp_path / "map.json", ("crane", "crane"), "birds")
