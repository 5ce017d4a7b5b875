"""What a training that comes to nothing leaves: nothing, unless a whole epoch is there to go on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.core.errors import BenchError
from bench.training.epochs import CHECKPOINT, Epochs, alone_in
from tests.cli.commands.test_train import TINY_TRAINING, data_dir
from tests.conftest import Bench

__all__ = ["data_dir"]
TWO_EPOCHS = ("--set", "epochs=2", "--set", "batch_size=64", "--device", "cpu")


def training(data: Path, output: Path, *recipe: str) -> tuple[Any, ...]:
    return ("train", *recipe, "--output", output, "--data-dir", data, "--id", "mine")


def diverging(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Every training has a loss that is no number in that epoch, from 0."""
    mean = Epochs.mean

    def broken(self: Epochs, number: int, *arguments: Any) -> dict[str, float]:
        row = mean(self, number, *arguments)
        return {name: float("nan") for name in row} if number == epoch else row

    monkeypatch.setattr(Epochs, "mean", broken)


def test_a_training_that_diverges_in_its_first_epoch_leaves_nothing(
    bench: Bench, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverging(monkeypatch, 0)
    output = tmp_path / "zoo"
    assert "training diverged" in bench.refused(*training(data_dir, output, "--recipe", "standard"), *TINY_TRAINING)
    assert not list(output.rglob("*mine*"))
    short = ("--set", "epochs=1", "--set", "width=0.1", "--set", "batch_size=100")
    assert "training diverged" in bench.refused(*training(data_dir, output, "--recipe", "vae_gan"), *short)
    assert not list(output.rglob("*mine*"))


def test_one_that_diverges_later_keeps_its_whole_epochs(
    bench: Bench, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        diverging(patched, 1)
        started = (*training(data_dir, tmp_path, "--recipe", "standard"), *TWO_EPOCHS)
        assert "The last good state is in" in bench.refused(*started)
    assert list(tmp_path.rglob(CHECKPOINT))
    assert bench(*started)[0] == 0


def test_one_whose_target_maps_fail_leaves_nothing_and_takes_nothing_of_another(
    bench: Bench, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise BenchError("no maps.")

    assert bench("train", "--recipe", "standard", "--output", tmp_path, "--data-dir", data_dir, *TINY_TRAINING)[0] == 0
    monkeypatch.setattr("bench.training.methods.interpretation.InterpretationRegularization.target_maps", fail)
    started = (*training(data_dir, tmp_path, "--recipe", "ir_gradient"), *TINY_TRAINING)
    assert "no maps" in bench.refused(*started)
    work = tmp_path / "fashion_mnist" / ".mine.training"
    assert not work.exists()
    work.mkdir()
    with alone_in(work):
        assert "no maps" in bench.refused(*started)
        assert work.is_dir()
