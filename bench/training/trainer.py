"""The one trainer of classifiers: epochs over a recipe's loss, with validation on held-out training examples.

The last epoch's weights are published, unless the schedule's `checkpoint` asks for the best of the second half of the
epochs; nothing is chosen by looking at the test split, unless that is asked for by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.core.errors import BenchError
from bench.core.files import sha256_bytes
from bench.core.keyed_random import stream_key
from bench.core.precision import MixedPrecision
from bench.core.torch_state import twice_differentiable
from bench.data import ImageDataset
from bench.training.augmentation import crop_and_flip
from bench.training.epochs import Epochs, Progress
from bench.training.measures import QUICK_THREATS, accuracy, quick_robust_accuracy
from bench.training.methods import Batch
from bench.training.recipe import Recipe, Schedule

VALIDATION_EXAMPLES = 5000
_ROBUST_EXAMPLES = 512


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """The outcome of one training; `rows[published]` is of the epoch whose weights `model` has."""

    model: nn.Module
    rows: list[dict[str, float]]
    seconds: float
    published: int
    training_examples: int
    validation_examples: int


def split_validation(count: int) -> tuple[Tensor, Tensor]:
    """Training and validation indices, the same for every recipe and seed; raises BenchError for too few examples."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(2020))
    held_out = min(VALIDATION_EXAMPLES, count // 6)
    if held_out == 0:
        raise BenchError(f"{count} training images are too few: one in six is held out, so there must be 6 at least.")
    return order[held_out:].sort().values, order[:held_out].sort().values


def train(
    recipe: Recipe,
    model: nn.Module,
    dataset: ImageDataset,
    *,
    seed: int,
    device: torch.device,
    folder: Path,
    target_maps: Tensor | None = None,
    test: ImageDataset | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> TrainingRun:
    """Train `model` by `recipe` on the training part of `dataset`.

    Each epoch's order and noise come from (seed, epoch), so a run that is stopped and resumed at an epoch gives the
    same weights. After each epoch the state is written to `folder`, and an unfinished state found there is resumed.

    Args:
        model: on `device`, freshly built.
        target_maps: (number of training examples, C, H, W), aligned with `split_validation(len(dataset))[0]`.
        test: looked at only where the schedule's checkpoint is `best_test`.

    Raises:
        BenchError: the loss diverged, the state in `folder` is of another training, or it cannot be written.
    """
    training, held_out = split_validation(len(dataset))
    expected = (len(training), *dataset.shape[1:])
    if target_maps is not None and tuple(target_maps.shape) != expected:
        raise BenchError(
            f"the target maps have shape {tuple(target_maps.shape)}, but the training part of {dataset.name} needs "
            f"{expected}; make them from this data set."
        )
    images, labels = dataset.stored(slice(None)).to(device), dataset.labels.to(device)
    trainer = _Trainer(recipe, model, seed, device)
    validation = (dataset.pixels(held_out).to(device), labels[held_out.to(device)])
    epochs = Epochs(
        folder, _fingerprint(recipe, seed, dataset, target_maps),
        {"model": model, "optimizer": trainer.optimizer, "best": trainer.best}, recipe.schedule.epochs,
        on_progress=on_progress,
    )  # fmt: skip
    steps = math.ceil(len(training) / recipe.schedule.batch_size)

    def epoch(number: int) -> dict[str, float]:
        terms = trainer.steps(number, steps, images, labels, indices=training, target_maps=target_maps)
        row = epochs.mean(number, steps, terms) | _validate(model, *validation, dataset.name)
        if test is not None and recipe.schedule.checkpoint == "best_test":
            row["test_accuracy"] = accuracy(model, test.pixels(slice(None)).to(device), test.labels.to(device))
        trainer.keep_best(number, row)
        return row

    epochs.run(epoch)
    published = len(epochs.rows) - 1
    if trainer.best.weights is not None:
        model.load_state_dict(trainer.best.weights)
        published = trainer.best.epoch
    return TrainingRun(
        model, epochs.rows, epochs.seconds, published,
        training_examples=len(training), validation_examples=len(held_out),
    )  # fmt: skip


def _validate(model: nn.Module, images: Tensor, labels: Tensor, dataset: str) -> dict[str, float]:
    row = {"validation_accuracy": accuracy(model, images, labels)}
    some = slice(0, _ROBUST_EXAMPLES)
    for threat in QUICK_THREATS.get(dataset, ()):
        name = f"validation_pgd10_{threat.norm}_{threat.eps:.4g}"
        row[name] = quick_robust_accuracy(model, images[some], labels[some], threat)
    return row


def _fingerprint(recipe: Recipe, seed: int, dataset: ImageDataset, target_maps: Tensor | None) -> str:
    """Digest of everything that shapes the weights."""
    maps = "" if target_maps is None else sha256_bytes(target_maps.contiguous().numpy().tobytes())
    method, schedule = recipe.method.model_dump(), recipe.schedule.model_dump()
    content: dict[str, Any] = {"recipe": recipe.name, "method": method, "schedule": schedule, "seed": seed}
    content["data"] = f"{dataset.sha256} {maps}"
    return sha256_bytes(repr(content).encode())


@dataclass(slots=True)
class _Best:
    """The weights of the best epoch so far, where the schedule asks for them."""

    score: float = -1.0
    weights: dict[str, Tensor] | None = None
    epoch: int = -1

    def state_dict(self) -> dict[str, Any]:
        return {"score": self.score, "weights": self.weights, "epoch": self.epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.score, self.weights = state_dict["score"], state_dict["weights"]
        self.epoch = state_dict.get("epoch", -1)


class _Trainer:
    """Optimiser and loop of one training."""

    def __init__(self, recipe: Recipe, model: nn.Module, seed: int, device: torch.device) -> None:
        self.recipe, self.model, self.seed, self.device = recipe, model, seed, device
        # shares the parameters of `model`, which goes on being validated itself, in float32
        net = MixedPrecision(model, device.type) if recipe.schedule.precision == "bfloat16" else model
        self.net = cast(nn.Module, torch.compile(net)) if recipe.schedule.compile else net
        self.best = _Best()
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = _optimizer(recipe.schedule, parameters)
        std = getattr(getattr(model, "normalization", None), "std", None)
        self.pixel_std = std.detach() if isinstance(std, Tensor) else torch.ones(1, 1, 1, 1, device=device)

    def steps(
        self, epoch: int, count: int, images: Tensor, labels: Tensor, *, indices: Tensor, target_maps: Tensor | None
    ) -> Iterator[dict[str, Tensor]]:
        """Do the `count` steps of an epoch; gives the terms of each times its share of the examples."""
        generator = torch.Generator().manual_seed(stream_key("epoch", self.seed, epoch) & ((1 << 63) - 1))
        torch.manual_seed(generator.initial_seed())  # dropout's
        order = torch.randperm(len(indices), generator=generator)
        self.net.train()
        for step, positions in enumerate(torch.split(order, self.recipe.schedule.batch_size)):
            chosen = indices[positions].to(self.device)
            maps = None if target_maps is None else target_maps[positions].to(self.device)
            pixels = images[chosen].to(torch.float32).div_(1.0 if images.is_floating_point() else 255.0)
            if self.recipe.schedule.augmentation == "crop_flip":
                pixels, maps = crop_and_flip(pixels, maps, generator)
            done, all_steps = epoch * count + step, count * self.recipe.schedule.epochs
            batch = Batch(pixels, labels[chosen], maps, self.pixel_std, generator=generator, progress=done / all_steps)
            share = len(positions) / len(order)
            yield {name: value * share for name, value in self._step(batch, done, all_steps).items()}

    def _step(self, batch: Batch, step: int, steps: int) -> dict[str, Tensor]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.schedule.learning_rate * _learning_rate_factor(step, steps, self.recipe.schedule)
        with twice_differentiable(self.recipe.method.second_derivatives):
            terms = self.recipe.method.loss_terms(self.net, batch)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        if self.recipe.schedule.gradient_clip > 0:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.schedule.gradient_clip)
        self.optimizer.step()
        return {name: term.detach() for name, term in terms.items()}

    def keep_best(self, epoch: int, row: dict[str, float]) -> None:
        """Where the schedule asks for the best epoch: keep the weights of the best one of the second half so far."""
        schedule = self.recipe.schedule
        if schedule.checkpoint == "last" or epoch + 1 <= schedule.epochs / 2:
            return
        score = row["test_accuracy" if schedule.checkpoint == "best_test" else "validation_accuracy"]
        if score > self.best.score:
            self.best.score, self.best.epoch = score, epoch
            self.best.weights = {key: value.detach().clone() for key, value in self.model.state_dict().items()}


def _optimizer(schedule: Schedule, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    rate, decay = schedule.learning_rate, schedule.weight_decay
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=0.9, nesterov=True, weight_decay=decay)
    adam = torch.optim.AdamW if schedule.optimizer == "adamw" else torch.optim.Adam
    return adam(parameters, lr=rate, weight_decay=decay)


def _learning_rate_factor(step: int, steps: int, schedule: Schedule) -> float:
    """What the peak learning rate is multiplied by in step 0, 1, ... of `steps`."""
    warmup = schedule.warmup_share * steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule.schedule == "multistep":
        return schedule.gamma ** sum(step * schedule.epochs >= epoch * steps for epoch in schedule.milestones)
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1.0, steps - warmup)))


def describe_recipe(recipe: Recipe) -> dict[str, Any]:
    """Parameters and schedule as plain values, for cards and listings."""
    parts = {"parameters": recipe.method, "schedule": recipe.schedule}
    return {name: part.model_dump(exclude_none=True) for name, part in parts.items()}
