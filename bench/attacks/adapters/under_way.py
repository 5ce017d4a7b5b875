"""What a net answers to an attack that takes its images all together is kept, so that a stop loses little.

Such an attack cannot be cut. Called again with the same random numbers it asks the net the same questions, and gets the
answers that were kept: logits and gradients, in the order in which they came. No verdict depends on it.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.core.errors import BenchError
from bench.core.files import is_old, sha256_bytes
from bench.core.torch_state import put_back_random_states, random_states, read_state, write_state

logger = logging.getLogger(__name__)

EVERY_SECONDS = 30.0
"""Between two writes: so much a stop loses."""
_IN_MEMORY = 512 << 20
"""Bytes of answers that wait to be written; a call of the attack that has more within EVERY_SECONDS is soon over."""
_BY = "by"
"""In the folder of a unit, what has computed it."""
_ON_DISK = 4 << 30
"""Bytes of answers that one call of the attack leaves on the disk until it returns; later ones are not kept."""


class UnderWay:
    """The calls of attacks in one work unit, in their order; kept in the user's cache until the unit is done."""

    def __init__(self, folder: Path, identity: str, by: str) -> None:
        """Begin a unit, or go on with one that was stopped.

        Args:
            folder: of all units, (its digest) / (number of the call).
            identity: all that decides the unit's verdicts, but for the attacks' random numbers.
            by: what computes, as `computed_by` says; what others have kept is not mixed with it, but removed.
        """
        self._above = folder
        self._folder = folder / sha256_bytes(identity.encode())
        self._by = by
        if self._folder.is_dir() and (former := read_state(self._folder / _BY).get("by", "an older version")) != by:
            logger.warning(
                "an attack under way begins again, since other versions or another device began it: %s", former
            )
            self.remove()
        self._written = time.monotonic()
        self._results: dict[str, dict[str, Any]] = {}
        self._calls = 0

    def next_call(self, given: Tensor) -> Answers:
        """What is kept of the unit's next call of an attack, which is given these images (N, C, H, W)."""
        self._calls += 1
        return Answers(self, self._folder / f"{self._calls:05d}", _checksum(given))

    def returned(self, call: Path, result: dict[str, Any]) -> None:
        """A call is over, and this is what it returned."""
        self._results[f"{call.name}.pt"] = result
        self.write({})

    def write(self, answers: Mapping[str, Callable[[], dict[str, Any]]]) -> bool:
        """Write these files and the results that wait, if the last time was long enough ago; whether it was."""
        if time.monotonic() - self._written < EVERY_SECONDS:
            return False
        made_now = {name: made() for name, made in answers.items()}
        for name, content in ({_BY: {"by": self._by}} | self._results | made_now).items():
            try:
                write_state(self._folder / name, content)
            except BenchError as error:
                logger.warning("an attack under way is not kept: %s", error)
        self._results = {}
        for other in self._above.iterdir() if self._above.is_dir() else ():
            if other != self._folder and is_old(other):
                shutil.rmtree(other, ignore_errors=True)
        self._written = time.monotonic()
        return True

    def remove(self) -> None:
        """The unit is done."""
        shutil.rmtree(self._folder, ignore_errors=True)


class _Answer(NamedTuple):
    """What the net said: the question's checksum, and the random states after it, where it drew from them."""

    question: int
    said: Tensor
    states: tuple[Any, ...] | None


class Answers:
    """The net's answers within one call of an attack: those that were kept first, then those that are computed."""

    def __init__(self, unit: UnderWay, call: Path, given: int) -> None:
        self._unit, self._call, self._given = unit, call, given
        self._files = deque(sorted(call.parent.glob(f"{call.name}-*.pt")))
        self._parts, self._bytes = len(self._files), sum(path.stat().st_size for path in self._files)
        self._kept: deque[_Answer] = deque()
        self._waiting: list[_Answer] = []
        self._waiting_bytes = 0
        self._is_noting = True

    def result(self) -> dict[str, Any]:
        """What the call has returned, as it was kept; empty where it has not."""
        found = read_state(self._call.with_suffix(".pt"))
        return found if found and found["given"] == self._given else {}

    def returned(self, **result: Any) -> None:
        self._forget()  # what it returned takes the place of the answers to it
        self._unit.returned(self._call, {"given": self._given, **result})

    def ask(self, question: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """The next answer, as it was kept or as it is computed now."""
        asked = _checksum(question)
        kept = self._next()
        if kept is not None and kept.question == asked:
            if kept.states is not None:
                put_back_random_states(kept.states)
            return kept.said.to(question.device)
        if kept is not None:  # the attack does not repeat itself
            self._forget()
        before = random_states(question.device)
        said = compute()
        if self._is_noting:
            after = random_states(question.device)
            self._note(_Answer(asked, said.detach().cpu().clone(), None if _same(before, after) else after))
        return said

    def stop(self) -> None:
        """Keep no further answers of this call."""
        self._is_noting = False
        self._waiting = []

    def _next(self) -> _Answer | None:
        if not self._kept and self._files:
            found = read_state(self._files.popleft())
            self._kept.extend(_Answer(*one) for one in found.get("answers", ()))
            if not self._kept:
                self._forget()
        return self._kept.popleft() if self._kept else None

    def _forget(self) -> None:
        for path in self._call.parent.glob(f"{self._call.name}-*.pt"):
            with suppress(OSError):
                path.unlink()
        self._kept.clear()
        self._files.clear()
        self.stop()

    def _note(self, answer: _Answer) -> None:
        self._waiting.append(answer)
        self._waiting_bytes += answer.said.nbytes
        part = f"{self._call.name}-{self._parts:05d}.pt"
        if self._unit.write({part: lambda: {"answers": [tuple(one) for one in self._waiting]}}):
            self._parts, self._bytes = self._parts + 1, self._bytes + self._waiting_bytes
            self._waiting, self._waiting_bytes = [], 0
        if self._waiting_bytes > _IN_MEMORY or self._bytes > _ON_DISK:
            self.stop()


def _checksum(values: Tensor) -> int:
    """Of the bits of all values and of their order, computed where they are."""
    bits = values.detach().float().flatten().view(torch.int32).long()
    return int((bits * torch.arange(1, 2 * len(bits), 2, device=bits.device)).sum())


def _same(before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
    return all(
        torch.equal(one, other) if isinstance(one, Tensor) else one == other
        for one, other in zip(before, after, strict=True)
    )
