"""Several trainings: one after another, or side by side in processes of their own where that is faster."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass

import torch

from bench.core.devices import worker_device
from bench.core.errors import BenchError
from bench.core.memory import free_memory
from bench.executors.local_workers import HelperProcess, tell
from bench.runs.failures import Failures
from bench.training.epochs import Progress
from bench.training.fitting import TrainingRequest
from bench.training.publish import train_and_publish
from bench.training.vae_gan import VaeGanRecipe, train_vae_gan

logger = logging.getLogger(__name__)
_BYTES = 2 << 30
"""Main memory of a training: data, target maps and a step's activations of a small net."""
_LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Training:
    """One of several trainings."""

    request: TrainingRequest
    watch: Callable[[], Callable[[Progress], None]]
    """Called as it starts, for who is told its progress."""
    autoencoder: VaeGanRecipe | None = None
    """What is trained in place of the request's recipe."""

    @property
    def source(self) -> str | None:
        """The model that its target maps come from."""
        return None if self.autoencoder else self.request.recipe.method.source


def side_by_side(count: int, device: torch.device, workers: int | None) -> int:
    """How many of `count` trainings run at a time: `workers`, or one a core and one a GPU, as memory has room for.

    Small nets gain little from a second thread: two at a time on two cores take about half the time.
    """
    free = free_memory()
    room = math.inf if free is None else free // _BYTES
    own = torch.get_num_threads() if device.type == "cpu" else 1
    return int(max(1, min(count, own, room) if workers is None else min(count, workers)))


def train_all(trainings: Sequence[Training], workers: int | None = None, failures: Failures | None = None) -> None:
    """Train and publish all of them; one whose target maps come from another of them waits for that one.

    Args:
        trainings: sources before those that need them; all on the same device.
        workers: processes at most; None: as many as pay.
        failures: gets the trainings that fail, while the others go on; None: that is an error.

    Raises:
        BenchError: the processes of all trainings were ended; finished epochs are kept.
    """
    failures = failures or Failures()
    count = side_by_side(len(trainings), trainings[0].request.device, workers) if trainings else 0
    if count > 1:
        _SideBySide(trainings).carry_out(count, failures)
        return
    for training in trainings:
        with failures.of(training.request.name):
            _train(training.request, training.autoencoder, training.watch())


def _train(request: TrainingRequest, autoencoder: VaeGanRecipe | None, on_progress: Callable[[Progress], None]) -> None:
    if autoencoder is None:
        train_and_publish(
            request, on_progress=on_progress, on_targets=lambda done, total: on_progress(Progress(0, 0, done, total))
        )
    else:
        train_vae_gan(autoencoder, request, on_progress=on_progress)


class _SideBySide:
    """Trainings on their way, each in a helper process."""

    def __init__(self, trainings: Sequence[Training]) -> None:
        self._waiting = list(trainings)
        self._unfinished = {training.request.name for training in trainings}
        self._running: dict[Future[None], tuple[Training, int]] = {}
        self._told: dict[int, Callable[[Progress], None]] = {}

    def carry_out(self, count: int, failures: Failures) -> None:
        threads = max(1, torch.get_num_threads() // count)
        with ExitStack() as stack:
            helpers = _helpers(count, stack)
            count = len(helpers)
            idle = deque(range(count))
            while self._unfinished:
                while idle and (training := self._next()) is not None:
                    number = idle.popleft()
                    device = worker_device(training.request.device, number)
                    request = dataclasses.replace(training.request, device=device)
                    helpers[number].at[:] = [0] * 4  # so that its last training's progress is not told as this one's
                    call = helpers[number].submit(_train_there, request, training.autoencoder, threads)
                    self._running[call], self._told[number] = (training, number), training.watch()
                done = wait(self._running, _LOOK_SECONDS, FIRST_COMPLETED).done
                for _, number in self._running.values():
                    epoch, epochs, step, steps = helpers[number].at
                    if steps > 0:  # else it is not that far yet
                        self._told[number](Progress(epoch, epochs, step, steps))
                for call in done:
                    training, number = self._running.pop(call)
                    if isinstance(call.exception(), BrokenExecutor):
                        count -= 1
                        _warn_of_end(training.request.name, call, left=count)
                        self._waiting.insert(0, training)
                        continue
                    with failures.of(training.request.name):
                        call.result()
                    self._unfinished.remove(training.request.name)
                    idle.append(number)

    def _next(self) -> Training | None:
        """The first one whose source is there; one that nothing under way can help is let fail by itself."""
        for position, training in enumerate(self._waiting):
            if training.source not in self._unfinished or not self._running:
                return self._waiting.pop(position)
        return None


def _helpers(count: int, stack: ExitStack) -> list[HelperProcess]:
    """As many of `count` processes as can be started, ended with the `stack`; raises BenchError where none can."""
    helpers: list[HelperProcess] = []
    try:
        for _ in range(count):
            helpers.append(HelperProcess())
            stack.callback(helpers[-1].stop)
    except OSError as error:  # no more processes, or no memory for them
        if not helpers:
            raise BenchError(
                f"no process can be started ({error.strerror}); train one at a time.", option="workers"
            ) from error
        logger.warning("no more processes can be started (%s): %d at a time", error.strerror, len(helpers))
    return helpers


def _warn_of_end(name: str, call: Future[None], left: int) -> None:
    """Say that a process is gone; raises BenchError where none is `left` to go on with."""
    ended = f"the process that trained {name} was ended, perhaps for want of memory; its whole epochs are kept."
    if not left:
        raise BenchError(f"{ended} Go on with fewer workers.", option="workers") from call.exception()
    logger.warning("%s It goes on in another: %d at a time from now on.", ended, left)


def _train_there(request: TrainingRequest, autoencoder: VaeGanRecipe | None, threads: int) -> None:
    """In a helper process."""
    torch.set_num_threads(threads)
    _train(request, autoencoder, lambda state: tell(state.epoch, state.epochs, state.step, state.steps))
