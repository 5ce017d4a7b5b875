"""Work units that would take long are cut, so that a stop loses little: each piece is saved as a unit of its own.

How long a unit takes is not known before it runs. One that turns out to take more than a minute is given up early and
cut; what follows is cut by the pace of what was done. The cuts decide no verdict, and what takes less is never cut.

An attack calls the net as often for one image as for a whole batch, so a piece keeps enough images for a call and what
goes with it to cost more than what any call costs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bench.core.errors import StoppedError
from bench.leaderboard.evidence.manifest import UnitStats
from bench.protocols.base import UNIT_EXAMPLES
from bench.runs.plan import RunPlan, WorkUnit, piece

LONGEST_SECONDS = 60.0
"""A unit of more images than one that takes longer is cut."""
_PIECE_SECONDS = 40.0
_LOOK_SECONDS = 15.0
"""How long a unit runs before it is judged; so much is lost where it is cut."""
_WITHOUT_A_SIGN = 8.0
"""A unit that has finished no step by then is taken to need so many times as long."""
_STEP_SECONDS = 0.02
"""A piece has so many images that one call of the net, with the gradient and the step around it, takes this long at
least; processor time, which does not grow where others use the machine too."""


@dataclass(frozen=True, slots=True)
class SlowUnit:
    """A unit that was given up, to be cut.

    Attributes:
        pace: seconds an image, as far as can be told.
        done: work that had been reported, and is lost.
        smallest: images that a piece should have at least.
    """

    index: int
    pace: float
    done: int
    smallest: int = 1


def pieces(plan: RunPlan, unit: WorkUnit, pace: float, smallest: int = 1) -> list[WorkUnit]:
    """The unit, or what it is cut into, `smallest` images or more each, where `pace` seconds an image are too long."""
    count = unit.stop - unit.start
    size = min(count, max(smallest, int(_PIECE_SECONDS / pace))) if pace > 0 else count
    parts = min(-(-count // size), max(1, count // smallest))
    if parts == 1 or count * pace <= LONGEST_SECONDS or not plan.protocol.may_be_cut:
        return [unit]
    size = -(-count // parts)  # as large as each other
    return _cut(unit, size)


def shared(plan: RunPlan, units: Iterable[WorkUnit], workers: int) -> list[WorkUnit]:
    """Units of which every one of the workers gets two at least, where they are larger than the protocol's own."""
    units = list(units)
    size = max(UNIT_EXAMPLES, -(-sum(unit.stop - unit.start for unit in units) // (2 * workers)))
    if workers == 1 or not plan.protocol.fills_device:
        return units
    return [part for unit in units for part in ([unit] if unit.stop - unit.start <= size else _cut(unit, size))]


def _cut(unit: WorkUnit, size: int) -> list[WorkUnit]:
    return [piece(start, min(start + size, unit.stop)) for start in range(unit.start, unit.stop, size)]


def missing_units(plan: RunPlan, done: Iterable[UnitStats]) -> list[WorkUnit]:
    """What no unit that is done has covered, cut by the pace of those, and no smaller than the largest of them."""
    known = sorted(done, key=lambda stats: stats.start)
    sizes = [one.stop - one.start for one in known]
    seconds, count = sum(one.seconds for one in known), sum(sizes)
    pace, smallest = seconds / count if count else 0.0, max(sizes, default=1)
    gaps = [gap for unit in plan.units for gap in _gaps(unit, known)]
    return [part for gap in gaps for part in pieces(plan, gap, pace, smallest)]


def _gaps(unit: WorkUnit, known: list[UnitStats]) -> Iterator[WorkUnit]:
    """What is left of a unit; what is known may lie across its ends, of a run that another device had begun."""
    start = unit.start
    for one in known:
        if one.stop > start and one.start < unit.stop:
            if start < one.start:
                yield piece(start, one.start)
            start = one.stop
    if start == unit.start:
        yield unit
    elif start < unit.stop:
        yield piece(start, unit.stop)


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
        self._began, self._began_cpu = time.monotonic(), time.thread_time()
        self._calls = self._rows = 0
        self.done = 0
        self.slow: SlowUnit | None = None

    @property
    def smallest(self) -> int:
        """Images that a piece should have at least, by what calls of the net have cost so far."""
        spent = time.thread_time() - self._began_cpu
        if not self._calls or spent <= 0:
            return 1
        # a call of so many images costs spent / calls seconds
        return max(1, math.ceil(_STEP_SECONDS * self._rows / spent))

    def look(self) -> None:
        """Raise StoppedError if the unit is to be given up."""
        if self.slow is not None or self._stopped():
            raise StoppedError
        passed = time.monotonic() - self._began
        if not self._may_cut or passed < _LOOK_SECONDS:
            return
        self._may_cut = False
        expected = passed * min(_WITHOUT_A_SIGN, self._work / max(1, self.done))
        count, smallest = self._unit.stop - self._unit.start, self.smallest
        # two pieces at least come of it
        if expected > LONGEST_SECONDS and count >= 2 * smallest:
            self.slow = SlowUnit(self._unit.index, expected / count, self.done, smallest)
            raise StoppedError

    def reported(self, amount: int) -> None:
        self.done += amount
        self.look()

    @contextmanager
    def over(self, model: nn.Module) -> Iterator[None]:
        """Look before each call of the net too; one that takes no hooks does not tell what a call costs: no cut."""
        if isinstance(model, torch.jit.ScriptModule):
            self._may_cut = False
            yield
            return

        def called(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            self._calls += 1
            self._rows += len(arguments[0]) if arguments else 0
            self.look()

        hook = model.register_forward_pre_hook(called)
        try:
            yield
        finally:
            hook.remove()
