"""Work units that would take long are cut, so that a stop loses little: each piece is saved as a unit of its own.

How long a unit takes is not known before it runs. One that turns out to take more than a minute is given up early and
cut; what follows is cut by the pace of what was done. The cuts decide no verdict, and what takes less is never cut.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from bench.core.errors import StoppedError
from bench.leaderboard.evidence.manifest import UnitStats
from bench.runs.plan import RunPlan, WorkUnit

LONGEST_SECONDS = 60.0
"""A unit of more images than one that takes longer is cut."""
_PIECE_SECONDS = 40.0
_LOOK_SECONDS = 15.0
"""How long a unit runs before it is judged; so much is lost where it is cut."""
_WITHOUT_A_SIGN = 8.0
"""A unit that has finished no step by then is taken to need so many times as long."""
_PIECES = 1_000_000
"""Added to where a piece starts, for its index: those of whole units lie below."""


@dataclass(frozen=True, slots=True)
class SlowUnit:
    """A unit that was given up, to be cut.

    Attributes:
        pace: seconds an image, as far as can be told.
        done: work that had been reported, and is lost.
    """

    index: int
    pace: float
    done: int


def pieces(plan: RunPlan, unit: WorkUnit, pace: float) -> list[WorkUnit]:
    """The unit, or what it is cut into where it would take too long at `pace` seconds an image."""
    count = unit.stop - unit.start
    size = min(count, max(1, int(_PIECE_SECONDS / pace))) if pace > 0 else count
    if size == count or count * pace <= LONGEST_SECONDS or not plan.protocol.may_be_cut:
        return [unit]
    size = -(-count // -(-count // size))  # as large as each other
    return [_piece(start, min(start + size, unit.stop)) for start in range(unit.start, unit.stop, size)]


def missing_units(plan: RunPlan, done: Iterable[UnitStats]) -> list[WorkUnit]:
    """What no unit that is done has covered, cut by the pace of those."""
    known = sorted(done, key=lambda stats: stats.start)
    seconds, count = sum(one.seconds for one in known), sum(one.stop - one.start for one in known)
    return [
        piece
        for unit in plan.units
        for gap in _gaps(unit, known)
        for piece in pieces(plan, gap, seconds / count if count else 0.0)
    ]


def _gaps(unit: WorkUnit, known: list[UnitStats]) -> Iterator[WorkUnit]:
    start = unit.start
    for one in known:
        if start <= one.start < unit.stop:
            if start < one.start:
                yield _piece(start, one.start)
            start = one.stop
    if start == unit.start:
        yield unit
    elif start < unit.stop:
        yield _piece(start, unit.stop)


def _piece(start: int, stop: int) -> WorkUnit:
    return WorkUnit(_PIECES + start, start, stop)


class UnitWatch:
    """Looks at a unit while it is computed, whenever it calls the net or reports progress.

    Attributes:
        slow: set once the unit has been given up.
    """

    def __init__(self, plan: RunPlan, unit: WorkUnit, stopped: Callable[[], bool]) -> None:
        """Give the unit up when `stopped` says that it is not wanted, or when it would take too long."""
        self._unit, self._stopped = unit, stopped
        self._work = plan.work_of(unit)
        self._may_cut = plan.protocol.may_be_cut and unit.stop - unit.start > 1
        self._began = time.monotonic()
        self.done = 0
        self.slow: SlowUnit | None = None

    def look(self) -> None:
        """Raise StoppedError if the unit is to be given up."""
        if self.slow is not None or self._stopped():
            raise StoppedError
        passed = time.monotonic() - self._began
        if not self._may_cut or passed < _LOOK_SECONDS:
            return
        self._may_cut = False
        expected = passed * min(_WITHOUT_A_SIGN, self._work / max(1, self.done))
        if expected > LONGEST_SECONDS:
            self.slow = SlowUnit(self._unit.index, expected / (self._unit.stop - self._unit.start), self.done)
            raise StoppedError

    def reported(self, amount: int) -> None:
        self.done += amount
        self.look()

    @contextmanager
    def over(self, model: nn.Module) -> Iterator[None]:
        """Look before each call of the net too, where it is one that takes hooks."""
        if isinstance(model, torch.jit.ScriptModule):
            yield
            return
        hook = model.register_forward_pre_hook(lambda *_: self.look())
        try:
            yield
        finally:
            hook.remove()
