from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.attributions.manipulations import MANIPULATIONS
from bench.attributions.registry import our_methods
from bench.catalog.locations import shipped
from tests.conftest import Bench, ModelCopy

QUICK = ("saliency", "--method", "gradient", "--attack", "random_sign")


def test_a_png_and_an_svg_are_written_with_the_same_numbers(bench: Bench, tmp_path: Path) -> None:
    arguments = (
        *QUICK,
        "--method",
        "grad_cam",
        "--model",
        "standard",
        "--model",
        "at_linf",
        "--image",
        "0,17",
    )
    png, svg = tmp_path / "panel.png", tmp_path / "panel.SVG"
    code, first, err = bench(*arguments, "--output", png)
    assert code == 0, err
    assert str(png) in first
    for part in ("fashion_mnist/standard, image 0: label Ankle boot", "fashion_mnist/at_linf, image 17: label Coat"):
        assert part in first
    assert len(re.findall(r"cosine -?[01]\.\d{3}, top-k [01]\.\d{3}", first)) == 8
    pixels = np.asarray(Image.open(png).convert("RGB"))
    assert pixels.shape[0] > 1000 and pixels.std() > 20
    assert bench(*arguments, "--output", svg)[1] == first.replace(str(png), str(svg))
    assert svg.read_text().startswith("<?xml") and "image 17" in svg.read_text()  # text is in its comments
    assert sorted(path.name for path in tmp_path.iterdir()) == ["panel.SVG", "panel.png"]


def test_the_help_names_every_method_and_attack(bench: Bench) -> None:
    shown = " ".join(bench("saliency", "--help")[1].replace("│", " ").split())
    for name in (*our_methods(), *MANIPULATIONS):
        assert name in shown


def test_the_same_command_writes_the_same_bytes(bench: Bench, tmp_path: Path) -> None:
    for name in ("first.png", "second.png"):
        assert bench("saliency", "--model", "standard", "--method", "smoothgrad", "--attack", "random_sign", "--output", tmp_path / name)[0] == 0  # fmt: skip
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


BAD = {
    "an index past the end": (["--image", 10000], "image 10000 is not in the test split of fashion_mnist, whose images are 0 to 9999"),
    "a negative index": (["--image", -1], "image -1 is not in the test split"),
    "an unknown method": (["--method", "gradeint"], "unknown attribution method 'gradeint'; did you mean gradient"),
    "an unknown attack": (["--attack", "topk"], "unknown attack on maps 'topk'; did you mean top_k"),
    "an unknown model": (["--model", "standrad"], "did you mean"),
    "another kind of file": (["--output", "panel.gif"], "must end in .png, .svg or .pdf"),
    "a file without an ending": (["--output", "panel"], "must end in .png, .svg or .pdf"),
    "a missing folder": (["--output", "nowhere/panel.png"], "there is no folder nowhere"),
    "a folder": (["--output", "folder.png"], "is a folder; name a file in it"),
    "a radius of zero": (["--eps", 0], "eps 0.0 is not a radius"),
    "a radius beyond the pixels": (["--eps", 8], "eps 8.0 is not a radius"),
    "a radius that is no number": (["--eps", "nan"], "eps nan is not a radius"),
    "too many rows": ([part for image in range(50) for part in ("--image", image)], "50 rows; a panel has at most 40"),
    "an unknown data set": (["--dataset", "fashion_mnst"], "unknown data set"),
    "an unknown device": (["--device", "tpu"], "unknown device"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_one_line_and_leaves_nothing(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    arguments, expected = BAD[case]
    assert expected in bench.refused(*QUICK, "--model", "standard", *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


LINEAR = """
import torch
def make():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10), torch.nn.Softmax(1))
"""


@pytest.mark.parametrize(
    ("method", "reason"), [("grad_cam", "needs a convolution"), ("lrp_epsilon", "LRP has no rule for the operation")]
)
def test_a_method_that_a_net_cannot_have_is_refused_and_the_old_picture_stays(
    bench: Bench, tmp_path: Path, method: str, reason: str
) -> None:
    (tmp_path / "net.py").write_text(LINEAR)
    output = tmp_path / "panel.png"
    output.write_bytes(b"old")
    line = bench.refused(*QUICK, "--method", method, "--model", "standard", "--model", f"{tmp_path / 'net.py'}:make", "--output", output)  # fmt: skip
    assert reason in line
    assert output.read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"net.py", "panel.png"}


def test_damaged_weights_and_a_full_disk_leave_nothing(
    bench: Bench, tmp_path: Path, model_copy: ModelCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    output = tmp_path / "panel.png"
    with monkeypatch.context() as patch:
        patch.setattr("bench.core.files.os.fsync", full)
        assert "the disk is full" in bench.refused(*QUICK, "--model", "copy", "--output", output)
    model_copy.weights.write_bytes(b"rubbish")
    assert "do not match their card" in bench.refused(*QUICK, "--model", "copy", "--output", output)
    assert [path.name for path in tmp_path.iterdir()] == ["registry"]


def test_a_model_of_ones_own_is_drawn_with_its_weights_and_settings(bench: Bench, tmp_path: Path) -> None:
    weights = shipped("models") / "fashion_mnist" / "standard" / "weights.safetensors"
    (tmp_path / "net.py").write_text(
        "from bench.nets import build_net\n"
        "def make():\n"
        "    values = dict(in_channels=1, image_size=28, num_classes=10, mean=[0.286], std=[0.353])\n"
        "    return build_net('small_cnn', values)\n"
    )
    own = ("--model", f"{tmp_path / 'net.py'}:make", "--weights", weights, "--model-id", "mine")
    code, mine, err = bench(*QUICK, *own, "--output", tmp_path / "mine.png")
    assert code == 0, err
    theirs = bench(*QUICK, "--model", "standard", "--output", tmp_path / "theirs.png")[1]
    assert mine.replace("mine", "theirs") == theirs.replace("standard", "theirs")
    assert bench(*QUICK, *own, "--input-size", 14, "--output", tmp_path / "mine.png")[0] == 2  # does not fit the net
    code, _, err = bench("models", "add", *own[1:], "--registry", tmp_path / "zoo", "--examples", 20)
    assert code == 0, err
    card = (*QUICK, "--model", "mine", "--registry", tmp_path / "zoo", "--output", tmp_path / "card.png")
    assert "name that file if you trust it (--program)." in bench.refused(*card)
    assert bench(*card, "--program", tmp_path / "net.py")[1].replace("card.png", "mine.png") == mine
