from __future__ import annotations

import gzip
from pathlib import Path

import platformdirs
import pytest

from bench.catalog.cards import read_card
from bench.data import loading
from bench.data.loading import load_split
from tests.conftest import Bench
from tests.data.test_idx import idx

TINY_TRAINING = ("--set", "epochs=1", "--set", "batch_size=64", "--device", "cpu")


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A training split of 600 images, cut from the embedded test split, in torchvision's layout."""
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache"))
    raw = tmp_path / "data" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    test = load_split("fashion_mnist", "test")
    (raw / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(test.images[:600, 0].numpy())))
    (raw / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(test.labels[:600].numpy())))
    return tmp_path / "data"


def test_training_writes_a_model_that_can_be_run(
    bench: Bench, tmp_path: Path, data_dir: Path, tiny_suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "zoo"
    code, _, err = bench(
        "train",
        "--recipe",
        "standard",
        "--output",
        output,
        "--data-dir",
        data_dir,
        "--set",
        "epochs=2",
        "--device",
        "cpu",
    )
    assert code == 0, err
    folder = output / "fashion_mnist" / "standard"
    assert sorted(path.name for path in folder.iterdir()) == ["card.toml", "training.csv", "weights.safetensors"]
    card = read_card(folder)
    assert card.training is not None and card.training.schedule["epochs"] == 2
    assert (card.training.training_examples, card.training.validation_examples) == (500, 100)
    assert len((folder / "training.csv").read_text().splitlines()) == 3
    assert not list(output.glob("*/.*.training"))
    assert bench("run", "--model", folder, "--suite", tiny_suite, "--leaderboard", tmp_path / "board")[0] == 0


def test_interpretation_regularisation_trains_from_a_source_beside_it(
    bench: Bench, tmp_path: Path, data_dir: Path
) -> None:
    output = tmp_path / "zoo"
    common = ("--output", output, "--data-dir", data_dir, *TINY_TRAINING)
    assert bench("train", "--recipe", "standard", *common)[0] == 0
    code, _, err = bench("train", "--recipe", "ir_smoothgrad", *common, "--set", "samples=2")
    assert code == 0, err
    card = read_card(output / "fashion_mnist" / "ir_smoothgrad")
    assert card.training is not None
    assert card.training.source_sha256 == read_card(output / "fashion_mnist" / "standard").weights.sha256
    assert card.training.parameters["samples"] == 2
    assert card.gradients is not None and card.gradients.target_cosine is not None
    assert set(card.gradients.stability) == {"4/255", "8/255", "16/255"} and card.gradients.examples == 100


def test_an_untrained_source_needs_no_model(bench: Bench, tmp_path: Path, data_dir: Path) -> None:
    output = tmp_path / "zoo"
    code, _, err = bench(
        "train", "--recipe", "ir_untrained", "--output", output, "--data-dir", data_dir, *TINY_TRAINING
    )
    assert code == 0, err
    card = read_card(output / "fashion_mnist" / "ir_untrained")
    assert card.training is not None and card.training.source_model == "untrained"


def test_a_model_is_not_overwritten_unless_asked(bench: Bench, tmp_path: Path, data_dir: Path) -> None:
    common = ("train", "--recipe", "standard", "--output", tmp_path / "zoo", "--data-dir", data_dir, *TINY_TRAINING)
    assert bench(*common)[0] == 0
    assert "exists already; use --fresh" in bench.refused(*common)
    assert bench(*common, "--fresh")[0] == 0


def test_training_mistakes_are_refused_before_anything_is_written(
    bench: Bench, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "zoo"
    common = ("--output", output, "--data-dir", data_dir)
    assert "did you mean standard" in bench.refused("train", "--recipe", "stndard", *common)
    assert "did you mean epochs" in bench.refused("train", "--recipe", "standard", "--set", "epoch=3", *common)
    assert "is not PARAMETER=VALUE" in bench.refused("train", "--recipe", "standard", "--set", "epochs", *common)
    assert "train that first" in bench.refused(
        "train", "--recipe", "ir_gradient", "--set", "source_model=nobody", *common
    )
    monkeypatch.setattr(loading, "_further_places", lambda spec: [])
    monkeypatch.delenv("BENCH_DATA_DIR", raising=False)
    assert "get it by --download" in bench.refused("train", "--recipe", "standard", "--output", output)
    assert "not a plain name" in bench.refused("train", "--recipe", "standard", "--id", "../up", *common)
    assert not output.exists()
