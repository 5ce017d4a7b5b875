"""What runs in a helper process of this machine: one plan at a time, one unit at a time.

It writes no file of the run. Requests come in on standard input, answers go out on what was standard output, both
pickled one after another; the only writer and the only reader are processes of the same run. A helper ends when its
standard input does, so that nothing is left behind by a parent that was killed.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import traceback
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, BinaryIO

import torch
from torch import nn

from bench.core.errors import BenchError
from bench.data import ImageDataset
from bench.executors.shipping import PackedPlan, Refusal, unpack_plan
from bench.runs.plan import RunPlan, WorkUnit
from bench.runs.units import compute_unit


@dataclass(frozen=True, slots=True)
class Load:
    """A plan to take over; `number` comes back with the answer."""

    number: int
    plan: PackedPlan
    device: torch.device
    threads: int
    dataset: ImageDataset
    training: ImageDataset | None


@dataclass(frozen=True, slots=True)
class Started:
    """The helper's first answer: everything is imported."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The plan of this number is ready."""

    number: int


@dataclass(frozen=True, slots=True)
class Advanced:
    """So much of the unit's work is newly done, in the measure of `RunPlan.work`."""

    amount: int


def main() -> None:
    """Serve requests until standard input ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # whatever a model's own code prints must not come between the answers
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests: SimpleQueue[Load | WorkUnit] = SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, requests), daemon=True).start()
    try:
        _Helper(answers).serve(requests)
    except BaseException:  # noqa: BLE001  (told, and then over: the interpreter cannot shut down beside a thread that reads)
        traceback.print_exc()
        os._exit(1)


def _listen(stream: BinaryIO, requests: SimpleQueue[Load | WorkUnit]) -> None:
    """Pass requests on; end the process with the stream, also in the middle of a unit."""
    try:
        while True:
            requests.put(pickle.load(stream))  # noqa: S301  (written by the process that started this one)
    finally:
        os._exit(0)


class _Helper:
    def __init__(self, answers: BinaryIO) -> None:
        self._answers = answers
        self._plan: RunPlan | None = None
        self._model: nn.Module | None = None
        self._batch_size = 1

    def serve(self, requests: SimpleQueue[Load | WorkUnit]) -> None:
        self._answer(Started())
        while True:
            request = requests.get()
            try:
                self._answer(self._load(request) if isinstance(request, Load) else self._compute(request))
            except BenchError as error:
                self._answer(Refusal(str(error)))

    def _load(self, request: Load) -> Loaded:
        torch.set_num_threads(request.threads)
        self._plan = self._model = None
        self._plan, self._model = unpack_plan(request.plan, request.device, request.dataset, request.training)
        self._batch_size = self._plan.batch_size
        return Loaded(request.number)

    def _compute(self, unit: WorkUnit) -> Any:
        if self._plan is None or self._model is None:
            raise RuntimeError("no plan was loaded")
        finished = compute_unit(
            self._plan, unit, self._model, self._batch_size, lambda amount: self._answer(Advanced(amount))
        )
        self._batch_size = finished.batch_size
        return finished

    def _answer(self, answer: Any) -> None:
        content = pickle.dumps(answer)
        try:
            self._answers.write(content)
            self._answers.flush()
        except OSError:
            os._exit(0)  # nobody reads any more
