from __future__ import annotations

import csv
import errno
import gzip
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import platformdirs
import pytest
from filelock import FileLock

from bench.catalog.cards import read_card, write_card
from bench.data import loading
from bench.data.loading import load_split
from bench.training import list_recipes
from tests.conftest import Bench
from tests.data.formats.test_idx import idx
from tests.executors.processes import start_bench

TINY_TRAINING = ("--set", "epochs=1", "--set", "batch_size=64", "--device", "cpu")


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Splits of 300 images each, both cut from the embedded test split, in torchvision's layout."""
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache"))
    raw = tmp_path / "data" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    test = load_split("fashion_mnist", "test")
    for name, part in (("train", slice(300)), ("t10k", slice(300, 600))):
        (raw / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(test.images[part, 0].numpy()), 1))
        (raw / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(test.labels[part].numpy()), 1))
    return tmp_path / "data"


def test_a_model_can_be_put_under_a_method_of_its_own(bench: Bench, tmp_path: Path, data_dir: Path) -> None:
    arguments = ("train", "--recipe", "standard", "--id", "wide", "--output", tmp_path / "zoo", *TINY_TRAINING)
    code, _, err = bench(*arguments, "--data-dir", data_dir, "--method", "standard wide")
    assert code == 2 and "method" in err
    code, _, err = bench(*arguments, "--data-dir", data_dir, "--method", "standard_wide")
    assert code == 0, err
    card = read_card(tmp_path / "zoo" / "fashion_mnist" / "wide")
    assert (card.id, card.method, card.training and card.training.recipe) == ("wide", "standard_wide", "standard")


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
    assert (card.training.training_examples, card.training.validation_examples) == (250, 50)
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
    assert set(card.gradients.stability) == {"4/255", "8/255", "16/255"} and card.gradients.examples == 50


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
    assert "exists already; choose another name, or train it afresh (--id or --fresh)." in bench.refused(*common)
    assert bench(*common, "--fresh")[0] == 0


def test_training_mistakes_are_refused_before_anything_is_written(
    bench: Bench, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "zoo"
    common = ("--output", output, "--data-dir", data_dir)
    assert "did you mean standard" in bench.refused("train", "--recipe", "stndard", *common)
    assert "did you mean epochs" in bench.refused("train", "--recipe", "standard", "--set", "epoch=3", *common)
    assert "is not PARAMETER=VALUE" in bench.refused("train", "--recipe", "standard", "--set", "epochs", *common)
    assert "train that first: bench train --recipe RECIPE --id nobody" in bench.refused(
        "train", "--recipe", "ir_gradient", "--set", "source_model=nobody", *common
    )
    assert "unknown architecture 'nope'" in bench.refused(
        "train", "--recipe", "lga", "--set", "architecture=nope", *common
    )
    monkeypatch.setattr(loading, "_further_places", lambda spec: [])
    monkeypatch.delenv("BENCH_DATA_DIR", raising=False)
    assert "(--download or --data-dir)" in bench.refused("train", "--recipe", "standard", "--output", output)
    assert "not a plain name" in bench.refused("train", "--recipe", "standard", "--id", "../up", *common)
    assert not output.exists()


def test_a_training_killed_in_the_middle_goes_on_to_the_same_weights(
    bench: Bench, tmp_path: Path, data_dir: Path
) -> None:
    def arguments(output: Path) -> list[str]:
        return [
            "train", "--recipe", "lga", "--output", str(output), "--data-dir", str(data_dir),
            "--set", "epochs=2", "--set", "batch_size=64", "--device", "cpu",
        ]  # fmt: skip

    assert bench(*arguments(tmp_path / "whole"))[0] == 0
    state = tmp_path / "killed" / "fashion_mnist" / ".lga.training" / "checkpoint.pt"
    process = start_bench(*arguments(tmp_path / "killed"))
    while not state.exists() and process.is_alive():
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL and not (tmp_path / "killed" / "fashion_mnist" / "lga").exists()
    code, _, err = bench(*arguments(tmp_path / "killed"))
    assert code == 0, err
    folders = [tmp_path / name / "fashion_mnist" / "lga" for name in ("whole", "killed")]
    whole, resumed = (read_card(folder) for folder in folders)
    assert whole.weights == resumed.weights and whole.gradients == resumed.gradients


@pytest.mark.parametrize("name", ["checkpoint.pt", "weights.safetensors", "card.toml"])
def test_an_interrupted_write_leaves_no_model_and_training_goes_on_afterwards(
    bench: Bench, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The disk is full when `name` is to be moved into place."""
    common = ("train", "--recipe", "standard", "--output", tmp_path / "zoo", "--data-dir", data_dir, *TINY_TRAINING)
    replace = os.replace

    def full(source: str, target: str) -> None:
        if str(target).endswith(name):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert "space" in bench.refused(*common)
    folder = tmp_path / "zoo" / "fashion_mnist" / "standard"
    assert not folder.exists()
    assert not list((tmp_path / "zoo").rglob("*.tmp*"))
    assert bench(*common)[0] == 0 and read_card(folder)


def test_event_files_hold_what_training_csv_holds(bench: Bench, tmp_path: Path, data_dir: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    code, _, err = bench(
        "train", "--recipe", "lga", "--output", tmp_path / "zoo", "--data-dir", data_dir, *TINY_TRAINING[2:],
        "--set", "epochs=2", "--tensorboard", tmp_path / "events",
    )  # fmt: skip
    assert code == 0, err
    events = EventAccumulator(str(tmp_path / "events" / "fashion_mnist" / "lga"))
    events.Reload()
    with (tmp_path / "zoo" / "fashion_mnist" / "lga" / "training.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert set(events.Tags()["scalars"]) == set(rows[0]) - {"epoch"}
    for name in ("cosine", "l2", "validation_accuracy"):
        points = [(point.step, point.value) for point in events.Scalars(name)]
        assert points == [(index + 1, pytest.approx(float(row[name]), rel=1e-4)) for index, row in enumerate(rows)]


def test_without_tensorboard_the_option_says_what_to_install(
    bench: Bench, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    line = bench.refused(
        "train", "--recipe", "standard", "--output", tmp_path / "zoo", "--data-dir", data_dir,
        "--tensorboard", tmp_path / "events",
    )  # fmt: skip
    assert "pip install 'ribench[tensorboard]'" in line and not (tmp_path / "zoo").exists()


def test_the_help_explains_every_recipes_parameters(bench: Bench) -> None:
    code, text, _ = bench("train", "--help")
    assert code == 0 and "[bold]" not in text
    for template in list_recipes():
        assert template.name in text
        for parameter in template.method.model_fields:
            assert parameter in text


def test_a_search_keeps_every_trial_and_does_not_repeat_one(bench: Bench, tmp_path: Path, data_dir: Path) -> None:
    output = tmp_path / "zoo"
    common = ("tune", "--recipe", "lga", "--output", output, "--data-dir", data_dir, *TINY_TRAINING)
    code, shown, err = bench(*common, "--grid", "cosine_weight=0.5,1", "--grid", "l2_weight=0.1")
    assert code == 0, err
    assert '"cosine_weight": 0.5' in shown
    path = output / "fashion_mnist" / "tuning.csv"
    with path.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [json.loads(row["changed"])["cosine_weight"] for row in rows] == [0.5, 1]
    assert all(0 <= float(row["validation_accuracy"]) <= 1 and 0 < float(row["stability_8/255"]) <= 1 for row in rows)
    assert {path.name for path in (output / "fashion_mnist").iterdir()} == {".lock", "tuning.csv"}
    before = path.read_bytes()
    code, shown, _ = bench(*common, "--grid", "cosine_weight=1,1.0", "--grid", "l2_weight=0.1,.1")
    assert code == 0 and shown.count("cosine_weight") == 1
    assert path.read_bytes() == before
    assert bench(*common, "--grid", "l2_weight=0.2")[0] == 0
    assert path.read_bytes().startswith(before) and len(path.read_text().splitlines()) == 4
    assert "looks at test images" in bench.refused(*common, "--grid", "l2_weight=1", "--set", "checkpoint=best_test")


def test_a_row_of_a_search_is_of_the_epoch_whose_gradients_it_measures(
    bench: Bench, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.1, 0.9, 0.3])
    monkeypatch.setattr("bench.training.trainer._validate", lambda *_: {"validation_accuracy": next(scores)})
    code, _, err = bench(
        "tune", "--recipe", "standard", "--output", tmp_path, "--data-dir", data_dir, *TINY_TRAINING[2:],
        "--set", "epochs=3", "--set", "checkpoint=best_validation", "--grid", "weight_decay=0",
    )  # fmt: skip
    assert code == 0, err
    with (tmp_path / "fashion_mnist" / "tuning.csv").open() as stream:
        assert [row["validation_accuracy"] for row in csv.DictReader(stream)] == ["0.9"]


def test_two_searches_do_not_write_their_rows_at_the_same_time(
    bench: Bench, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.core.files.LOCK_SECONDS", 0.1)
    (tmp_path / "fashion_mnist").mkdir()
    with FileLock(tmp_path / "fashion_mnist" / ".lock"):
        line = bench.refused(
            "tune", "--recipe", "standard", "--output", tmp_path, "--data-dir", data_dir, *TINY_TRAINING,
            "--grid", "weight_decay=0",
        )  # fmt: skip
    assert "another process has held" in line and not list(tmp_path.rglob("tuning.csv"))


@pytest.mark.parametrize(
    ("declared", "count", "line"),
    [('train = "all.npz"\ntest = "all.npz"\n', 12, "are the same images"), ("", 5, "too few")],
)
def test_data_that_no_training_can_use_is_refused(
    bench: Bench, tmp_path: Path, declared: str, count: int, line: str
) -> None:
    images, labels = np.random.default_rng(0).integers(0, 255, (12, 28, 28), np.uint8), np.arange(12) % 10
    np.savez(tmp_path / "all.npz", x=images, y=labels)
    np.savez(tmp_path / "mnist.npz", x_train=images[:count], y_train=labels[:count], x_test=images, y_test=labels)
    if declared:
        (tmp_path / "mnist.toml").write_text("schema_version = 1\n" + declared)
    common = ("--recipe", "standard", "--dataset", "mnist", "--data-dir", tmp_path, "--output", tmp_path / "zoo")
    assert line in bench.refused("train", *common)
    assert not (tmp_path / "zoo" / "mnist" / "standard").exists()


def test_measuring_again_gives_what_training_measured(bench: Bench, tmp_path: Path, data_dir: Path) -> None:
    output = tmp_path / "zoo"
    common = ("--output", output, "--data-dir", data_dir, *TINY_TRAINING)
    assert bench("train", "--recipe", "standard", *common)[0] == 0
    assert bench("train", "--recipe", "ir_gradient", *common)[0] == 0
    folder = output / "fashion_mnist" / "ir_gradient"
    card = read_card(folder)
    write_card(folder, card.model_copy(update={"gradients": None}))
    code, shown, err = bench("models", "measure", folder, "--data-dir", data_dir, "--device", "cpu")
    assert code == 0 and "ir_gradient" in shown, err
    assert read_card(folder) == card
    assert card.training is not None
    other = card.training.model_copy(update={"data_sha256": "0" * 64})
    write_card(folder, card.model_copy(update={"training": other}))
    assert "trained on other data" in bench.refused("models", "measure", folder, "--data-dir", data_dir)
