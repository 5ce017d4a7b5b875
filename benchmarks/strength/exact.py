"""The exact distance to the nearest misclassified image, of small nets of affine layers (linear, convolutions) and ReLU.

L-inf and L1: a mixed-integer program a wrong class (Tjeng, Xiao, Tedrake, "Evaluating robustness of neural networks with
mixed integer programming", ICLR 2019), solved by scipy's HiGHS. L2: branch and bound over the ReLUs' signs. Both inside the
ball of the nearest misclassified image known, which bounds every ReLU; whoever knows none searches the whole box. What is
given back is an interval: where time runs out, or rounding leaves a doubt, it is wide, and never a guess.
"""

from __future__ import annotations

import heapq
import itertools
import time
from dataclasses import dataclass, field

import numpy as np

from bench.core.threat import Norm
from benchmarks.strength.layers import Array, Layers, pre_activations
from benchmarks.strength.programs import SOLVED, Program, Relaxation, nearest_in_cell


@dataclass(frozen=True, slots=True)
class Exact:
    """The distance lies in [lower, upper]; `upper` is infinite where no misclassified image is known."""

    lower: float
    upper: float

    @property
    def solved(self) -> bool:
        return self.lower == self.upper or (
            bool(np.isfinite(self.upper)) and self.upper - self.lower <= SOLVED * self.upper
        )


def exact_distance(
    layers: Layers, image: Array, label: int, norm: Norm, *, start: Array | None = None, seconds: float = 60.0
) -> Exact:
    """The distance of an image (D,) in [0, 1] to the nearest one in [0, 1] on which another class is level or ahead.

    Args:
        start: (D,) a misclassified image, within whose ball the search begins.
        seconds: of the whole search; what is not decided by then is left between bounds.
    """
    logits = layers.logits(image)
    if logits.argmax() != label:
        return Exact(0.0, 0.0)
    search = _Search(layers, image, label, norm, until=time.monotonic() + seconds)
    if start is not None:
        search.offer(start)
    order = [int(other) for other in np.argsort(-logits) if other != label]
    lower = min(search.towards(target) for target in order)
    return Exact(min(lower, search.upper), search.upper)


@dataclass
class _Search:
    """The state of one image's search: the nearest misclassified image known, at distance `upper`."""

    layers: Layers
    image: Array
    label: int
    norm: Norm
    until: float
    upper: float = np.inf
    bounds: list[tuple[Array, Array]] = field(default_factory=list)

    def offer(self, point: Array) -> None:
        """Take a point that is in the box and misclassified, or level, if it is nearer."""
        logits = self.layers.logits(point)
        wrong = np.delete(logits, self.label).max() >= logits[self.label] - 1e-9
        length = float(np.linalg.norm(point - self.image, {"linf": np.inf, "l2": 2, "l1": 1}[self.norm]))
        if wrong and (point >= -1e-9).all() and (point <= 1 + 1e-9).all():
            self.upper = min(self.upper, length)

    def towards(self, target: int) -> float:
        """A lower bound of the distance at which the target is level; that itself, or `upper`, where it is solved."""
        gain = np.zeros(len(self.layers.biases[-1]))
        gain[target], gain[self.label] = 1.0, -1.0
        self.bounds = pre_activations(self.layers, self.image, self.norm, self.upper)
        if time.monotonic() >= self.until:
            return 0.0
        if self.norm == "l2":
            return self._branch(gain)
        program = Program(self.layers, self.image, self.norm, self.upper, bounds=self.bounds)
        lower, point = program.solve(gain, self.until - time.monotonic())
        if point is not None:
            self.offer_cell(point, gain)
        return lower

    def _branch(self, gain: Array) -> float:
        """Best first over the signs of ReLUs; each node's bound is the nearest point of a linear relaxation."""
        settled = np.inf
        root = [np.where(low >= 0, 1.0, np.where(high <= 0, 0.0, 0.5)) for low, high in self.bounds]
        waiting: list[tuple[float, int, list[Array]]] = [(0.0, 0, root)]
        numbers = itertools.count(1)
        while waiting:
            if time.monotonic() >= self.until:
                return min(settled, waiting[0][0])
            lower, _, signs = heapq.heappop(waiting)
            if lower >= self.upper * (1 - SOLVED / 2):
                return min(settled, lower)
            move, gap = Relaxation(self.layers, self.image, self.bounds, signs, gain=gain).nearest()
            if move is None:
                continue
            lower = max(lower, float(np.linalg.norm(move)) * (1 - 1e-7))
            self.offer(np.clip(self.image + move, 0.0, 1.0))
            self.offer_cell(self.image + move, gain)
            if gap is None:
                settled = min(settled, lower)
                continue
            layer, unit = gap
            for sign in (0.0, 1.0):
                child = [one.copy() for one in signs]
                child[layer][unit] = sign
                heapq.heappush(waiting, (lower, next(numbers), child))
        return settled

    def offer_cell(self, point: Array, gain: Array) -> None:
        """Offer the nearest point of the cell that a solver's point lies in, which has no slack of the solver's."""
        rows, offsets = self.layers.cell(self.layers.signs(np.clip(point, 0.0, 1.0)), gain)
        found = nearest_in_cell(rows, offsets, self.image, self.norm)
        if found is not None:
            self.offer(found)
