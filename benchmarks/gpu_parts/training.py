"""(c) ResNet-18 on CIFAR-10: trained as far as the minutes go, judged, and packed to travel."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from bench.catalog.cards import Accuracy, write_card
from bench.catalog.models import ModelEntry, load_model
from bench.catalog.state_files import state_bytes, weights_of
from bench.core.files import write_atomically
from bench.data import ImageDataset
from bench.nets import build_net
from bench.runs.execute import execute
from bench.runs.plan import RunRequest, plan_runs
from bench.training.epochs import Progress
from bench.training.fitting import TrainingRequest
from bench.training.measures import accuracy
from bench.training.publish import train_and_publish
from bench.training.recipe import Recipe
from bench.training.recipes import make_recipe
from bench.training.trainer import split_validation, train
from benchmarks.gpu_parts.ledger import Ledger, Row, Sizes
from benchmarks.gpu_parts.travel import pack_board, pack_model, unpack_model

NET = "resnet18"
_TIMED_STEPS = 12
_LATE = 45.0
"""Seconds that a training may take longer than its share; then it is given up."""


@dataclasses.dataclass(frozen=True, slots=True)
class Studio:
    """Where models are trained: splits of CIFAR-10, the folder they lie in, and where rows go."""

    data_dir: Path
    training: ImageDataset
    test: ImageDataset
    models: Path
    board: Path


def training(ledger: Ledger, sizes: Sizes, studio: Studio) -> None:
    began, whole = time.perf_counter(), ledger.time_left()
    for path in sorted(ledger.out.glob("*.model")):
        unpack_model(path, studio.models / "cifar10" / path.stem)
    done = 0.0
    for name, (share, departs) in sizes.recipes.items():
        done += share
        until = began + done * whole
        ledger.measure(
            name, lambda name=name, departs=departs, until=until: _train(ledger, sizes, studio, name, departs=departs, until=until),
            needs=0.3 * share * whole,
        )  # fmt: skip


def _train(ledger: Ledger, sizes: Sizes, studio: Studio, name: str, departs: dict[str, Any], until: float) -> Row:
    architecture, parameters = sizes.nets[NET]
    # an empty table would take the place of the recipe's own
    overrides = {"architecture": architecture, **departs}
    overrides |= {"architecture_parameters": parameters} if parameters else {}
    if name.startswith("ir_"):
        overrides["source_model"] = f"{NET}_standard"
    second = _epoch_seconds(_recipe(name, overrides, 1), sizes, studio)
    left = until - time.perf_counter()
    epochs = int(min(max(0.75 * left / second, 1), sizes.most_epochs))  # its measures and rows come after it
    request = TrainingRequest(
        recipe=_recipe(name, overrides, epochs), dataset="cifar10", output=studio.models, device=sizes.device,
        model_id=f"{NET}_{name}", data_dir=studio.data_dir, method=name, fresh=True,
    )  # fmt: skip

    def told(state: Progress) -> None:
        if time.perf_counter() > until + _LATE:
            raise TimeoutError(f"given up in epoch {state.epoch + 1} of {epochs}")

    began = time.perf_counter()
    entry = _rounded(train_and_publish(request, on_progress=told), studio, sizes.device)
    seconds = time.perf_counter() - began
    write_atomically(ledger.out / f"{entry.card.id}.model", pack_model(entry.folder))
    robust = _judge(entry, sizes, studio)
    pack_board(studio.board, ledger.out / "board.tar.gz")
    return {"epochs": epochs, "s an epoch": second, "s": seconds, "test accuracy": entry.card.accuracy.test, **robust}


def _recipe(name: str, overrides: dict[str, Any], epochs: int) -> Recipe:
    """With milestones at half and three quarters, where there are any."""
    usual = make_recipe(name, "cifar10", overrides).schedule
    steps = {"milestones": [max(1, epochs // 2), max(2, 3 * epochs // 4)]} if usual.schedule == "multistep" else {}
    return make_recipe(name, "cifar10", overrides | {"epochs": epochs} | steps)


def _epoch_seconds(recipe: Recipe, sizes: Sizes, studio: Studio) -> float:
    """From a few steps, the second time that they are done; target maps come on top."""
    whole = studio.training
    count = min(len(whole), _TIMED_STEPS * recipe.schedule.batch_size * 6 // 5)
    few = dataclasses.replace(whole, store=whole.stored(slice(count)), labels=whole.labels[:count])
    maps = torch.randn(len(split_validation(count)[0]), *whole.shape[1:]) if recipe.method.source else None
    took = 0.0
    for _ in range(2):
        net = build_net(recipe.schedule.architecture, recipe.architecture_parameters(_spec())).to(sizes.device)
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            train(recipe, net, few, seed=0, device=sizes.device, folder=Path(folder), target_maps=maps)
        took = time.perf_counter() - began
    return took * len(split_validation(len(whole))[0]) / len(split_validation(count)[0])


def _spec() -> Any:
    from bench.data.specs import DATASETS

    return DATASETS["cifar10"]


def _rounded(entry: ModelEntry, studio: Studio, device: torch.device) -> ModelEntry:
    """Its weights rounded to bfloat16, of which four nets' worth may travel; measured anew, and said in the card."""
    net = load_model(entry)
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(tensor.bfloat16().float())
    (entry.folder / "weights.safetensors").write_bytes(state_bytes(net))
    weights, net = weights_of(net), net.to(device)

    def right(data: ImageDataset, chosen: Any) -> float:
        return accuracy(net, data.pixels(chosen).to(device), data.labels[chosen].to(device))

    held_out = split_validation(len(studio.training))[1]
    measured = Accuracy(validation=right(studio.training, held_out), test=right(studio.test, slice(None)))
    described = f"{entry.card.description}; weights rounded to bfloat16"
    card = entry.card.model_copy(update={"weights": weights, "accuracy": measured, "description": described})
    write_card(entry.folder, card)
    return dataclasses.replace(entry, card=card)


def _judge(entry: ModelEntry, sizes: Sizes, studio: Studio) -> Row:
    """Rows of the suite autoattack_fast, into the leaderboard that goes home."""
    (plan,) = plan_runs(
        RunRequest(
            [str(entry.folder.resolve())], ["autoattack_fast"], studio.board, examples=sizes.rated,
            device=str(sizes.device), data_dir=studio.data_dir,
        )
    )  # fmt: skip
    outcome = execute(plan, studio.board)
    found = {
        f"robust {metric.key.norm}": metric.value
        for metric in outcome.metrics
        if metric.key.metric == "robust_accuracy"
    }
    return {"judged on": sizes.rated, "judged in s": outcome.seconds, **found}
