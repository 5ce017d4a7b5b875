from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.catalog.cards import read_card
from bench.core.errors import BenchError
from bench.executors import trainings
from bench.executors.local_workers import HelperProcess
from bench.executors.trainings import Training, side_by_side, train_all
from bench.runs.failures import Failures
from bench.training import make_recipe
from bench.training.epochs import Progress
from bench.training.fitting import TrainingRequest
from tests.cli.commands.test_train import data_dir

__all__ = ["data_dir"]

CPU = torch.device("cpu")
SHORT: dict[str, Any] = {"epochs": 1, "batch_size": 100}
MODELS: list[tuple[str, str, int, dict[str, Any]]] = [
    ("first", "standard", 0, SHORT),
    ("towards", "ir_gradient", 0, SHORT | {"source_model": "first"}),
    ("second", "standard", 1, SHORT),
]


def requests(folder: Path, data: Path) -> list[TrainingRequest]:
    return [
        TrainingRequest(
            recipe=make_recipe(recipe, "fashion_mnist", parameters), dataset="fashion_mnist", output=folder, device=CPU,
            model_id=name, seed=seed, data_dir=data,
        )
        for name, recipe, seed, parameters in MODELS
    ]  # fmt: skip


def train(folder: Path, data: Path, workers: int | None) -> dict[str, tuple[str, str | None]]:
    own = requests(folder, data)
    told: dict[str, list[Progress]] = {one.name: [] for one in own}
    started: list[str] = []

    def watch(name: str) -> Callable[[Progress], None]:
        started.append(name)
        return told[name].append

    train_all([Training(one, partial(watch, one.name)) for one in own], workers)
    assert sorted(started) == sorted(one.name for one in own)
    assert all(
        {state.epochs for state in states} <= ({0, 1} if name == "towards" else {1}) for name, states in told.items()
    )
    if workers == 1:
        assert [told[name][0].epochs for name in ("first", "towards")] == [1, 0], "target maps come first"
    cards = [read_card(one.folder) for one in own]
    return {card.id: (card.weights.sha256, card.training.source_sha256) for card in cards if card.training}


@pytest.mark.usefixtures("forked_helpers", "two_threads")
def test_side_by_side_come_the_same_nets_and_a_source_before_what_needs_it(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    submit = HelperProcess.submit

    def note(helper: HelperProcess, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        started.append(arguments[0].name)
        return submit(helper, function, *arguments)

    monkeypatch.setattr(HelperProcess, "submit", note)
    together = train(tmp_path / "together", data_dir, None)
    assert started == ["first", "second", "towards"], "its source was not there yet"
    monkeypatch.setattr(trainings, "HelperProcess", None)
    torch.set_num_threads(1)
    assert train(tmp_path / "alone", data_dir, 1) == together
    assert together["towards"][1] == together["first"][0]


@pytest.mark.usefixtures("forked_helpers", "two_threads")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_training_that_fails_keeps_no_other_from_being_done(tmp_path: Path, workers: int) -> None:
    recipe = make_recipe("ir_gradient", "fashion_mnist", {"source_model": "nowhere"})  # if not for want of data
    own = [dataclasses.replace(one, recipe=recipe) for one in requests(tmp_path, tmp_path)]
    failures = Failures(fast=False)
    train_all([Training(one, lambda: lambda _: None) for one in own], workers, failures)
    assert sorted(one.model for one in failures.found) == ["first", "second", "towards"]
    with pytest.raises(BenchError):
        train_all([Training(own[0], lambda: lambda _: None)])


@pytest.mark.usefixtures("forked_helpers", "two_threads")
@pytest.mark.parametrize("killed", [1, 2])
def test_a_training_whose_process_is_killed_goes_on_in_another_while_there_is_one(
    killed: int, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    submit, calls = HelperProcess.submit, itertools.count()

    def kill(helper: HelperProcess, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        call = submit(helper, function, *arguments)
        if next(calls) < killed and helper._context.started is not None:
            helper._context.started.kill()
        return call

    monkeypatch.setattr(HelperProcess, "submit", kill)
    own = [Training(one, lambda: lambda _: None) for one in requests(tmp_path, data_dir)]
    if killed == 2:
        with pytest.raises(BenchError, match=r"that trained (first|second) was ended, perhaps for want of memory"):
            train_all(own, 2)
    else:
        train_all(own, 2)
        assert all((one.request.folder / "card.toml").is_file() for one in own)
    assert "was ended, perhaps" in caplog.text and "1 at a time from now on" in caplog.text


@pytest.mark.usefixtures("forked_helpers", "two_threads")
def test_where_no_more_processes_can_be_started_fewer_train_at_a_time(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start, tried = HelperProcess.__init__, itertools.count()

    def refuse(helper: HelperProcess, first: int) -> None:
        if next(tried) >= first:
            raise OSError(11, "Resource temporarily unavailable")
        start(helper)

    own = [Training(one, lambda: lambda _: None) for one in requests(tmp_path, data_dir)]
    monkeypatch.setattr(HelperProcess, "__init__", partialmethod(refuse, 1))
    train_all(own, 2)
    assert all((one.request.folder / "card.toml").is_file() for one in own)
    assert "no more processes can be started (Resource temporarily unavailable): 1 at a time" in caplog.text
    monkeypatch.setattr(HelperProcess, "__init__", partialmethod(refuse, 0))
    with pytest.raises(BenchError, match="no process can be started"):
        train_all(own, 2)


@pytest.mark.usefixtures("two_threads")
def test_as_many_train_at_a_time_as_there_are_cores_and_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainings, "free_memory", lambda: 5 << 30)
    assert side_by_side(7, CPU, None) == 2 and side_by_side(1, CPU, None) == 1
    assert side_by_side(7, torch.device("cuda"), None) == 1, "one fills a GPU"
    monkeypatch.setattr(trainings, "free_memory", lambda: 3 << 30)
    assert side_by_side(7, CPU, None) == 1 and side_by_side(7, CPU, 4) == 4
    monkeypatch.setattr(trainings, "free_memory", lambda: None)
    assert side_by_side(0, CPU, None) == 1
