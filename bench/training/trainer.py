"""The one trainer: epochs over a recipe's loss, validation on held-out training examples, resume after a stop.

The last epoch's weights are published, unless the schedule's `checkpoint` asks for the best of the second half of the
epochs; nothing is chosen by looking at the test split, unless that is asked for by name.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.core.errors import BenchError
from bench.core.files import sha256_bytes, write_atomically
from bench.core.keyed_random import stream_key
from bench.data import ImageDataset
from bench.training.augmentation import crop_and_flip
from bench.training.methods import Batch
from bench.training.precision import prepare_for_steps
from bench.training.recipe import Recipe
from bench.training.validation import QUICK_THREATS, accuracy, quick_robust_accuracy

logger = logging.getLogger(__name__)
VALIDATION_EXAMPLES = 5000
_ROBUST_EXAMPLES = 512
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class Progress:
    """What the trainer tells whoever watches, after every few steps."""

    epoch: int
    epochs: int
    step: int
    steps: int
    row: dict[str, float] | None = None


@dataclass(slots=True)
class TrainingRun:
    """The state and the outcome of one training."""

    model: nn.Module
    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    training_examples: int = 0
    validation_examples: int = 0

    @property
    def epochs_done(self) -> int:
        return len(self.rows)


def split_validation(count: int) -> tuple[Tensor, Tensor]:
    """Training and validation indices: the same held-out examples for every recipe and seed."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(2020))
    held_out = min(VALIDATION_EXAMPLES, count // 6)
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
    on_progress: Callable[[Progress], None] | None = None,
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
    train_indices, validation_indices = split_validation(len(dataset))
    _require_fitting_maps(target_maps, (len(train_indices), *dataset.images.shape[1:]), dataset.name)
    images, labels = dataset.images.to(device), dataset.labels.to(device)
    trainer = _Trainer(recipe, model, seed, device, folder, on_progress, _data_digest(dataset, target_maps))
    run = TrainingRun(model, training_examples=len(train_indices), validation_examples=len(validation_indices))
    trainer.resume(run)
    validation = (dataset.pixels(validation_indices).to(device), labels[validation_indices.to(device)])
    for epoch in range(run.epochs_done, recipe.schedule.epochs):
        began = time.perf_counter()
        row = trainer.run_epoch(epoch, images, labels, train_indices, target_maps)
        row |= _validate(model, *validation, dataset.name)
        if test is not None and recipe.schedule.checkpoint == "best_test":
            row["test_accuracy"] = accuracy(model, test.pixels(slice(None)).to(device), test.labels.to(device))
        run.seconds += time.perf_counter() - began
        row["seconds"] = round(time.perf_counter() - began, 2)
        run.rows.append(row)
        trainer.keep_best(run)
        trainer.save(run)
        trainer.report(Progress(epoch + 1, recipe.schedule.epochs, 0, 1, row))
    if trainer.best is not None:
        model.load_state_dict(trainer.best)
    return run


def _validate(model: nn.Module, images: Tensor, labels: Tensor, dataset: str) -> dict[str, float]:
    row = {"validation_accuracy": accuracy(model, images, labels)}
    some = slice(0, _ROBUST_EXAMPLES)
    for threat in QUICK_THREATS.get(dataset, ()):
        name = f"validation_pgd10_{threat.norm}_{threat.eps:.4g}"
        row[name] = quick_robust_accuracy(model, images[some], labels[some], threat)
    return row


def _require_fitting_maps(target_maps: Tensor | None, expected: tuple[int, ...], dataset: str) -> None:
    if target_maps is not None and tuple(target_maps.shape) != expected:
        raise BenchError(
            f"the target maps have shape {tuple(target_maps.shape)}, but the training part of {dataset} needs "
            f"{expected}; make them from this data set."
        )


def _data_digest(dataset: ImageDataset, target_maps: Tensor | None) -> str:
    maps = "" if target_maps is None else sha256_bytes(target_maps.contiguous().numpy().tobytes())
    return f"{dataset.sha256} {maps}"


class _Trainer:
    """Optimiser and loop of one training."""

    def __init__(
        self,
        recipe: Recipe,
        model: nn.Module,
        seed: int,
        device: torch.device,
        folder: Path,
        on_progress: Callable[[Progress], None] | None,
        data_digest: str,
    ) -> None:
        self.data_digest = data_digest
        self.recipe, self.model, self.seed, self.device, self.folder = recipe, model, seed, device, folder
        self.on_progress = on_progress
        self.net = prepare_for_steps(recipe, model, device)
        self.best: dict[str, Tensor] | None = None
        schedule = recipe.schedule
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer: torch.optim.Optimizer = (
            torch.optim.AdamW(parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
            if schedule.optimizer == "adamw"
            else torch.optim.SGD(
                parameters, lr=schedule.learning_rate, momentum=0.9, nesterov=True, weight_decay=schedule.weight_decay
            )
        )
        std = getattr(getattr(model, "normalization", None), "std", None)
        self.pixel_std = std.detach() if isinstance(std, Tensor) else torch.ones(1, 1, 1, 1, device=device)

    def report(self, progress: Progress) -> None:
        if self.on_progress is not None:
            self.on_progress(progress)

    def run_epoch(
        self, epoch: int, images: Tensor, labels: Tensor, indices: Tensor, target_maps: Tensor | None
    ) -> dict[str, float]:
        generator = torch.Generator().manual_seed(stream_key("epoch", self.seed, epoch) & ((1 << 63) - 1))
        order = torch.randperm(len(indices), generator=generator)
        size = self.recipe.schedule.batch_size
        steps = math.ceil(len(order) / size)
        totals: dict[str, Tensor] = {}
        self.net.train()
        for step in range(steps):
            positions = order[step * size : (step + 1) * size]
            chosen = indices[positions].to(self.device)
            maps = None if target_maps is None else target_maps[positions].to(self.device)
            pixels = images[chosen].to(torch.float32).div_(255.0)
            if self.recipe.schedule.augmentation == "crop_flip":
                pixels, maps = crop_and_flip(pixels, maps, generator)
            done, all_steps = epoch * steps + step, steps * self.recipe.schedule.epochs
            batch = Batch(pixels, labels[chosen], maps, self.pixel_std, generator, done / all_steps)
            for name, value in self._step(batch, done, all_steps).items():
                totals[name] = totals.get(name, torch.zeros((), device=self.device)) + value * (
                    len(positions) / len(order)
                )
            if step % 10 == 0:
                self.report(Progress(epoch, self.recipe.schedule.epochs, step, steps))
        row = {"epoch": float(epoch + 1)} | {name: float(total) for name, total in totals.items()}
        self._check_finite(row)
        return row

    def _step(self, batch: Batch, step: int, steps: int) -> dict[str, Tensor]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.schedule.learning_rate * _learning_rate_factor(step, steps, self.recipe)
        terms = self.recipe.method.loss_terms(self.net, batch)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        if self.recipe.schedule.gradient_clip > 0:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.schedule.gradient_clip)
        self.optimizer.step()
        return {name: term.detach() for name, term in terms.items()}

    def _check_finite(self, row: dict[str, float]) -> None:
        for name, value in row.items():
            if not math.isfinite(value):
                raise BenchError(
                    f"training diverged: the term {name!r} is {value} in epoch {int(row['epoch'])}; "
                    f"lower its weight or the learning rate. The last good state is in {self.folder}."
                )

    @property
    def fingerprint(self) -> str:
        """Digest of everything that shapes the weights; a state of another training is never resumed."""
        facts = {
            "recipe": self.recipe.name,
            "method": self.recipe.method.model_dump(),
            "schedule": self.recipe.schedule.model_dump(),
            "seed": self.seed,
            "data": self.data_digest,
        }
        return sha256_bytes(repr(facts).encode())

    def keep_best(self, run: TrainingRun) -> None:
        """Where the schedule asks for the best epoch: keep the weights of the best one of the second half so far."""
        if self.recipe.schedule.checkpoint == "last":
            return
        name = "test_accuracy" if self.recipe.schedule.checkpoint == "best_test" else "validation_accuracy"
        late = [row[name] for row in run.rows if row["epoch"] > self.recipe.schedule.epochs / 2]
        if late and late[-1] > max(late[:-1], default=-1.0):
            self.best = {key: value.detach().clone() for key, value in self.model.state_dict().items()}

    def save(self, run: TrainingRun) -> None:
        state = {
            "fingerprint": self.fingerprint,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "rows": run.rows,
            "seconds": run.seconds,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.folder / CHECKPOINT, buffer.getvalue())
        write_atomically(self.folder / "training.csv", format_rows(run.rows))

    def resume(self, run: TrainingRun) -> None:
        path = self.folder / CHECKPOINT
        if not path.is_file():
            return
        try:
            state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
            fingerprint = state["fingerprint"]
        except Exception as error:
            raise BenchError(
                f"the unfinished training in {self.folder} cannot be read; use --fresh to start again."
            ) from error
        if fingerprint != self.fingerprint:
            raise BenchError(
                f"{self.folder} holds an unfinished training with other parameters; use --fresh to start again."
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best = state["best"]
        run.rows, run.seconds = list(state["rows"]), float(state["seconds"])
        logger.info("resuming after epoch %d", run.epochs_done)


def _learning_rate_factor(step: int, steps: int, recipe: Recipe) -> float:
    """Linear warm-up, then half a cosine down to 0."""
    warmup = recipe.schedule.warmup_share * steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1.0, steps - warmup)))


def format_rows(rows: list[dict[str, float]]) -> bytes:
    """training.csv: one row an epoch."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in rows)
    return stream.getvalue().encode()


def describe_recipe(recipe: Recipe) -> dict[str, Any]:
    """Parameters and schedule as plain values, for cards and listings."""
    return {
        "parameters": recipe.method.model_dump(exclude_none=True),
        "schedule": recipe.schedule.model_dump(exclude_none=True),
    }
