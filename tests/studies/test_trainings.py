from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.catalog.cards import read_card
from bench.core.errors import BenchError
from bench.executors.local_workers import HelperProcess
from bench.studies import trainings
from bench.studies.scales import TrainedModel
from bench.studies.trainings import side_by_side, train_models
from bench.training import make_recipe
from bench.training.epochs import Progress
from bench.training.fitting import TrainingRequest
from tests.cli.commands.test_train import data_dir
from tests.executors.conftest import forked_helpers, two_threads

__all__ = ["data_dir", "forked_helpers", "two_threads"]

CPU = torch.device("cpu")
SHORT: dict[str, Any] = {"epochs": 1, "batch_size": 100}
MODELS = [
    TrainedModel(id="first", recipe="standard", parameters=SHORT),
    TrainedModel(id="towards", recipe="ir_gradient", parameters=SHORT | {"source_model": "first", "samples": 1}),
    TrainedModel(id="second", recipe="standard", seed=1, parameters=SHORT),
]


class Watch:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, model: TrainedModel, count: str) -> Callable[[Progress], None]:
        self.asked.append(count + model.id)
        return lambda state: None


def train(folder: Path, data: Path, workers: int | None, watch: Watch) -> dict[str, tuple[str, str | None]]:
    template = TrainingRequest(
        recipe=make_recipe("standard", "fashion_mnist"),
        dataset="fashion_mnist",
        output=folder,
        device=CPU,
        data_dir=data,
    )
    train_models(MODELS, template, workers, watch)
    cards = [read_card(folder / "fashion_mnist" / model.id) for model in MODELS]
    return {card.id: (card.weights.sha256, card.training.source_sha256) for card in cards if card.training}


@pytest.mark.usefixtures("forked_helpers", "two_threads")
def test_side_by_side_come_the_same_nets_and_a_source_before_what_needs_it(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    submit = HelperProcess.submit

    def note(helper: HelperProcess, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        started.append(arguments[0].id)
        return submit(helper, function, *arguments)

    monkeypatch.setattr(HelperProcess, "submit", note)
    watch = Watch()
    together = train(tmp_path / "together", data_dir, None, watch)
    assert started == ["first", "second", "towards"], "its source was not there yet"
    assert watch.asked == ["[1/3] first", "[2/3] towards", "[3/3] second"]
    monkeypatch.setattr(trainings, "HelperProcess", None)
    torch.set_num_threads(1)
    assert train(tmp_path / "alone", data_dir, 1, watch) == together
    assert together["towards"][1] == together["first"][0]


@pytest.mark.usefixtures("forked_helpers", "two_threads")
def test_a_training_whose_process_is_killed_ends_the_study_in_one_line(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = HelperProcess.submit

    def kill(helper: HelperProcess, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        call = submit(helper, function, *arguments)
        if helper._context.started is not None:
            helper._context.started.kill()
        return call

    monkeypatch.setattr(HelperProcess, "submit", kill)
    with pytest.raises(BenchError, match=r"the process that trained (first|second) was ended, perhaps for want of mem"):
        train(tmp_path, data_dir, 2, Watch())


@pytest.mark.usefixtures("two_threads")
def test_as_many_train_at_a_time_as_there_are_cores_and_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainings, "free_memory", lambda: 5 << 30)
    assert side_by_side(7, CPU, None) == 2 and side_by_side(1, CPU, None) == 1
    assert side_by_side(7, torch.device("cuda"), None) == 1, "one fills a GPU"
    monkeypatch.setattr(trainings, "free_memory", lambda: 3 << 30)
    assert side_by_side(7, CPU, None) == 1 and side_by_side(7, CPU, 4) == 4
    monkeypatch.setattr(trainings, "free_memory", lambda: None)
    assert side_by_side(0, CPU, None) == 1
