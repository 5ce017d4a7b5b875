"""The linear, quadratic and mixed-integer programs of one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, linprog, milp, nnls

from bench.core.threat import Norm
from benchmarks.strength.layers import Array, Layers

SOLVED = 1e-4
"""How far apart a solved distance's bounds may lie, over the distance; HiGHS keeps its constraints to 1e-6 at best."""


class Program:
    """The linear or mixed-integer program of one image; variables are x, the distance's parts, ReLUs, their switches.

    A ReLU whose sign is settled is no variable: its output is the input, or 0, as a row over the variables.
    """

    def __init__(
        self, layers: Layers, image: Array, norm: Norm, radius: float, bounds: list[tuple[Array, Array]]
    ) -> None:
        size = len(image)
        parts = 1 if norm == "linf" else size
        open_count = sum(int(((low < 0) & (high > 0)).sum()) for low, high in bounds)
        self.size, self.count = size, size + parts + 2 * open_count
        self.cost = np.zeros(self.count)
        self.cost[size : size + parts] = 1.0
        self.low, self.high = np.zeros(self.count), np.ones(self.count)
        self.high[size : size + parts] = min(radius * (1 + 1e-9), 1.0)
        self.whole = np.zeros(self.count)
        self._rows: list[Array] = []
        self._least: list[Array] = []
        moved = np.zeros((size, self.count))
        moved[np.arange(size), size + (0 if norm == "linf" else np.arange(size))] = 1.0
        chosen = np.zeros((size, self.count))
        chosen[:, :size] = np.eye(size)
        self._require(moved - chosen, -image)
        self._require(moved + chosen, image)
        if np.isfinite(radius):
            self._require(-self.cost[None], np.array([-radius * (1 + 1e-9)]))
        self.slope, self.offset = chosen, np.zeros(size)
        self._next = size + parts
        for weight, bias, (low, high) in zip(layers.weights, layers.biases, bounds, strict=False):
            self._relu(weight, bias, low, high)
        self._last = (layers.weights[-1], layers.biases[-1])

    def _require(self, rows: Array, least: Array) -> None:
        self._rows.append(rows)
        self._least.append(least)

    def _relu(self, weight: Array, bias: Array, low: Array, high: Array) -> None:
        slope, offset = weight @ self.slope, weight @ self.offset + bias
        undecided = np.flatnonzero((low < 0) & (high > 0))
        count = len(undecided)
        outputs = np.zeros((count, self.count))
        switches = np.zeros((count, self.count))
        outputs[np.arange(count), self._next + np.arange(count)] = 1.0
        switches[np.arange(count), self._next + count + np.arange(count)] = 1.0
        self.high[self._next : self._next + count] = high[undecided]
        self.whole[self._next + count : self._next + 2 * count] = 1.0
        self._next += 2 * count
        bottom, top = low[undecided], high[undecided]
        self._require(outputs - slope[undecided], offset[undecided])
        self._require(slope[undecided] - outputs + bottom[:, None] * switches, bottom - offset[undecided])
        self._require(top[:, None] * switches - outputs, np.zeros(count))
        on = (low >= 0)[:, None]
        self.slope, self.offset = np.where(on, slope, 0.0), np.where(low >= 0, offset, 0.0)
        self.slope[undecided], self.offset[undecided] = outputs, 0.0

    def solve(self, gain: Array, seconds: float) -> tuple[float, Array | None]:
        """A lower bound of the distance within the radius at which the gain is 0; infinite where there is none."""
        weight, bias = self._last
        rows = np.vstack([*self._rows, gain @ weight @ self.slope])
        least = np.concatenate([*self._least, [-(gain @ (weight @ self.offset + bias))]])
        found = milp(
            self.cost, integrality=self.whole, bounds=Bounds(self.low, self.high),
            constraints=LinearConstraint(rows, least, np.inf), options={"time_limit": seconds, "mip_rel_gap": SOLVED / 10},
        )  # fmt: skip
        point = None if found.x is None else found.x[: self.size]
        if found.status == 2:
            return np.inf, None
        bound = found.mip_dual_bound
        return (0.0 if bound is None or not np.isfinite(bound) else max(0.0, float(bound)) * (1 - SOLVED / 2)), point


@dataclass(frozen=True, slots=True)
class Relaxation:
    """A node of the branch and bound: signs 1 and 0 are settled, 0.5 is open.

    What an open ReLU puts out lies under the chord of its bounds, and over both 0 and its input.
    """

    layers: Layers
    image: Array
    bounds: list[tuple[Array, Array]]
    signs: list[Array]
    gain: Array

    def nearest(self, cuts: int = 6) -> tuple[Array | None, tuple[int, int] | None]:
        """The shortest move to where the gain may be 0 (None: nowhere), and the ReLU to branch on (None: it is 0)."""
        size, move = len(self.image), np.zeros(len(self.image))
        rows, least = [np.eye(size), -np.eye(size)], [-self.image, self.image - 1.0]
        for cut in range(cuts):
            more, offsets, _ = self._rows(self.image + move)
            if cut and (more @ (self.image + move) + offsets >= -1e-9).all():
                break
            rows.append(more)
            least.append(-offsets - more @ self.image)
            found = least_move(np.vstack(rows), np.concatenate(least))
            if found is None:
                return None, None
            move = found
        return move, self._rows(self.image + move)[2]

    def _rows(self, point: Array) -> tuple[Array, Array, tuple[int, int] | None]:
        """Rows (A, b), A x + b >= 0 wherever the gain is at least 0 under the signs, as tight as can be at the point.

        And the open ReLU that loses the most of the gain there.
        """
        inputs, value = [], point
        for weight, bias in zip(self.layers.weights[:-1], self.layers.biases[:-1], strict=True):
            inputs.append(weight @ value + bias)
            value = np.maximum(inputs[-1], 0.0)
        rows, offsets = [], []
        for layer, signs in enumerate(self.signs):
            for unit in np.flatnonzero(signs != 0.5):
                low, high = self.bounds[layer][0][unit], self.bounds[layer][1][unit]
                if low < 0 < high:
                    direction = np.zeros(len(signs))
                    direction[unit] = 2 * signs[unit] - 1
                    row, offset, _ = self._back(layer, direction, inputs)
                    rows.append(row)
                    offsets.append(offset)
        row, offset, gap = self._back(len(self.signs), self.gain, inputs)
        return np.array([*rows, row]), np.array([*offsets, offset]), gap

    def _back(self, layer: int, direction: Array, inputs: list[Array]) -> tuple[Array, float, tuple[int, int] | None]:
        """A linear upper bound, over x, of direction @ (the layer's inputs), and the ReLU where it is the loosest."""
        slope, offset = direction @ self.layers.weights[layer], float(direction @ self.layers.biases[layer])
        loosest, gap = 1e-9, None
        for below in range(layer - 1, -1, -1):
            low, high = self.bounds[below]
            signs, value = self.signs[below], inputs[below]
            chord = np.where(signs == 0.5, high / np.maximum(high - low, 1e-12), signs)
            under = np.where(signs == 0.5, (value > 0).astype(float), signs)
            pace = np.where(slope > 0, chord, under)
            lift = np.where((signs == 0.5) & (slope > 0), -chord * low, 0.0)
            loss = np.abs(slope) * np.abs(pace * value + lift - np.maximum(value, 0.0)) * (signs == 0.5)
            if loss.max() > loosest:
                loosest, gap = float(loss.max()), (below, int(loss.argmax()))
            offset += float(slope @ lift)
            slope = slope * pace
            offset += float(slope @ self.layers.biases[below])
            slope = slope @ self.layers.weights[below]
        return slope, offset, gap


def nearest_in_cell(rows: Array, offsets: Array, image: Array, norm: Norm) -> Array | None:
    """The point of the polytope rows @ x + offsets >= 0, in the box, nearest to the image; None where it is empty."""
    size = len(image)
    box = np.vstack([np.eye(size), -np.eye(size)])
    if norm == "l2":
        least = np.concatenate([-offsets - rows @ image, -image, image - 1.0])
        move = least_move(np.vstack([rows, box]), least)
        return None if move is None else image + move
    parts = 1 if norm == "linf" else size
    spread = np.ones((size, 1)) if norm == "linf" else np.eye(size)
    limits = np.block([[-rows, np.zeros((len(rows), parts))], [np.eye(size), -spread], [-np.eye(size), -spread]])
    found = linprog(
        np.concatenate([np.zeros(size), np.ones(parts)]), A_ub=limits, b_ub=np.concatenate([offsets, image, -image]),
        bounds=[(0, 1)] * size + [(0, None)] * parts, method="highs",
    )  # fmt: skip
    return found.x[:size] if found.status == 0 else None


def least_move(rows: Array, least: Array) -> Array | None:
    """The shortest d with rows @ d >= least; None where there is none.

    Source: Lawson and Hanson, "Solving least squares problems", 1974, chapter 23 (least distance programming).
    """
    if (least <= 0).all():
        return np.zeros(rows.shape[1])
    target = np.zeros(rows.shape[1] + 1)
    target[-1] = 1.0
    system = np.vstack([rows.T, least])
    weights, _ = nnls(system, target, maxiter=20 * len(rows))
    residual = system @ weights - target
    if -residual[-1] < 1e-9:
        return None
    return -residual[:-1] / residual[-1]
