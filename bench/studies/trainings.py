"""A study's trainings: one after another, or side by side in processes of their own where that is faster."""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import ExitStack

import torch

from bench.core.devices import worker_device
from bench.core.errors import BenchError
from bench.core.memory import free_memory
from bench.executors.local_workers import HelperProcess, tell
from bench.studies.scales import AUTOENCODER, TrainedModel
from bench.training import make_recipe
from bench.training.epochs import Progress
from bench.training.fitting import TrainingRequest
from bench.training.publish import train_and_publish
from bench.training.vae_gan import make_vae_gan_recipe, train_vae_gan

WatchTraining = Callable[[TrainedModel, str], Callable[[Progress], None]]
_BYTES = 2 << 30
"""Main memory of a training: data, target maps and a step's activations of the studies' small nets."""
_LOOK_SECONDS = 0.25


def side_by_side(count: int, device: torch.device, workers: int | None) -> int:
    """How many of `count` trainings run at a time: `workers`, or one a core and one a GPU, as memory has room for.

    Small nets gain little from a second thread: two at a time on two cores take about half the time.
    """
    free = free_memory()
    room = math.inf if free is None else free // _BYTES
    own = torch.get_num_threads() if device.type == "cpu" else 1
    return int(max(1, min(count, own, room) if workers is None else min(count, workers)))


def train_models(
    models: Sequence[TrainedModel], template: TrainingRequest, workers: int | None, watch: WatchTraining
) -> None:
    """Train and publish all of them; one whose target maps come from another of them waits for that one.

    Args:
        models: sources before those that need them.
        template: the data set, where models are put, and on which device; the rest is each model's own.
        workers: processes at most; None: as many as pay.
        watch: asked for each model who is told its progress.

    Raises:
        BenchError: a training failed, or its process was ended; finished epochs of all of them are kept.
    """
    own = [(model, _request(model, template)) for model in models]
    tells = {model.id: watch(model, f"[{position}/{len(own)}] ") for position, model in enumerate(models, start=1)}
    count = side_by_side(len(own), template.device, workers)
    if count > 1:
        _SideBySide(own, tells).carry_out(count)
        return
    for model, request in own:
        _train(model, request, tells[model.id])


def _request(model: TrainedModel, template: TrainingRequest) -> TrainingRequest:
    named = model.recipe if model.recipe != AUTOENCODER else "standard"
    recipe = make_recipe(named, template.dataset, None if model.recipe == AUTOENCODER else model.parameters)
    return dataclasses.replace(template, recipe=recipe, model_id=model.id, seed=model.seed, method=model.method)


def _train(model: TrainedModel, request: TrainingRequest, on_progress: Callable[[Progress], None]) -> None:
    if model.recipe == AUTOENCODER:
        train_vae_gan(make_vae_gan_recipe(request.dataset, model.parameters), request, on_progress=on_progress)
    else:
        train_and_publish(request, on_progress=on_progress)


class _SideBySide:
    """Trainings on their way, each in a helper process."""

    def __init__(
        self, own: Sequence[tuple[TrainedModel, TrainingRequest]], tells: dict[str, Callable[[Progress], None]]
    ) -> None:
        self._waiting, self._tells = list(own), tells
        self._unfinished = {model.id for model, _ in own}
        self._running: dict[Future[None], tuple[TrainedModel, int]] = {}

    def carry_out(self, count: int) -> None:
        threads = max(1, torch.get_num_threads() // count)
        with ExitStack() as stack:
            helpers = [HelperProcess() for _ in range(count)]
            for helper in helpers:
                stack.callback(helper.stop)
            idle = deque(range(count))
            while self._unfinished:
                while idle and (ready := self._next()) is not None:
                    number, (model, request) = idle.popleft(), ready
                    request = dataclasses.replace(request, device=worker_device(request.device, number))
                    self._running[helpers[number].submit(_train_there, model, request, threads)] = model, number
                done = wait(self._running, _LOOK_SECONDS, FIRST_COMPLETED).done
                for model, number in self._running.values():
                    epoch, epochs, step, steps = helpers[number].at
                    if epochs > 0:  # else it is not that far yet
                        self._tells[model.id](Progress(epoch, epochs, step, steps))
                for call in done:
                    model, number = self._running.pop(call)
                    _result(model, call)
                    self._unfinished.remove(model.id)
                    idle.append(number)

    def _next(self) -> tuple[TrainedModel, TrainingRequest] | None:
        """The first one whose source is there; one that nothing under way can help is let fail by itself."""
        for position, (_, request) in enumerate(self._waiting):
            if request.recipe.method.source not in self._unfinished or not self._running:
                return self._waiting.pop(position)
        return None


def _result(model: TrainedModel, call: Future[None]) -> None:
    try:
        call.result()
    except BrokenExecutor as error:
        raise BenchError(
            f"the process that trained {model.id} was ended, perhaps for want of memory; its whole epochs are kept. "
            "Go on with fewer workers.", option="workers",
        ) from error  # fmt: skip


def _train_there(model: TrainedModel, request: TrainingRequest, threads: int) -> None:
    """In a helper process."""
    torch.set_num_threads(threads)
    tell(0, 0, 0, 0)
    _train(model, request, lambda state: tell(state.epoch, state.epochs, state.step, state.steps))
