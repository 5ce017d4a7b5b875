"""The layers of small nets of affine layers and ReLU, in float64, and bounds of what goes into each ReLU."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bench.core.threat import Norm

Array = NDArray[np.float64]
_DUAL: dict[Norm, float] = {"linf": 1.0, "l2": 2.0, "l1": np.inf}


@dataclass(frozen=True, slots=True)
class Layers:
    """A net's affine layers as matrices, float64; ReLU after all but the last."""

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]

    @classmethod
    def of(cls, net: nn.Module, shape: tuple[int, ...]) -> Layers:
        """Those of a net on images of this shape; raises ValueError for what is no Flatten, Linear, Conv2d or ReLU."""
        modules = [one for one in net.modules() if not isinstance(one, nn.Sequential)]
        other = {type(one) for one in modules} - {nn.Flatten, nn.Linear, nn.Conv2d, nn.ReLU}
        if other:
            raise ValueError(f"exact distances are for nets of affine layers and ReLU, not {other.pop().__name__}")
        weights, biases = [], []
        for is_relu, run in itertools.groupby(modules, lambda one: isinstance(one, nn.ReLU)):
            if is_relu:
                continue
            affine = copy.deepcopy(nn.Sequential(*run)).double().requires_grad_(False)
            size = math.prod(shape)
            values = affine(torch.cat([torch.zeros(1, size), torch.eye(size)]).double().view(-1, *shape))
            shape = tuple(values.shape[1:])
            weights.append((values[1:] - values[:1]).flatten(1).T.numpy())
            biases.append(values[0].flatten().numpy())
        return cls(tuple(weights), tuple(biases))

    def logits(self, image: Array) -> Array:
        """(D,) -> (K,)."""
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            image = np.maximum(weight @ image + bias, 0.0)
        return self.weights[-1] @ image + self.biases[-1]

    def signs(self, image: Array) -> list[Array]:
        """Which ReLUs are on, 1 or 0, layer by layer."""
        found = []
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            before = weight @ image + bias
            found.append((before > 0).astype(float))
            image = np.maximum(before, 0.0)
        return found

    def cell(self, signs: list[Array], gain: Array) -> tuple[Array, Array]:
        """Rows (A, b) of A x + b >= 0: the cell of the signs, and in the last row the logits' gain (K,) there."""
        slope, offset = np.eye(self.weights[0].shape[1]), np.zeros(self.weights[0].shape[1])
        rows, offsets = [], []
        for weight, bias, on in zip(self.weights, self.biases, signs, strict=False):
            slope, offset = weight @ slope, weight @ offset + bias
            rows.append((2 * on - 1)[:, None] * slope)
            offsets.append((2 * on - 1) * offset)
            slope, offset = on[:, None] * slope, on * offset
        last = gain @ self.weights[-1]
        rows.append((last @ slope)[None])
        offsets.append(np.atleast_1d(last @ offset + gain @ self.biases[-1]))
        return np.vstack(rows), np.concatenate(offsets)


def pre_activations(layers: Layers, image: Array, norm: Norm, radius: float) -> list[tuple[Array, Array]]:
    """Bounds (low, high) of every ReLU's input on the ball and the box, layer by layer.

    The first layer's by the dual norm and by the box; of later ones by intervals.
    """
    reach = min(radius, 1.0)
    low, high = np.clip(image - reach, 0.0, 1.0), np.clip(image + reach, 0.0, 1.0)
    found: list[tuple[Array, Array]] = []
    for weight, bias in zip(layers.weights[:-1], layers.biases[:-1], strict=True):
        rising, falling = np.maximum(weight, 0.0), np.minimum(weight, 0.0)
        bottom, top = rising @ low + falling @ high + bias, rising @ high + falling @ low + bias
        if not found and np.isfinite(radius):
            middle = weight @ image + bias
            swing = radius * np.linalg.norm(weight, _DUAL[norm], axis=1)
            bottom, top = np.maximum(bottom, middle - swing), np.minimum(top, middle + swing)
        found.append((bottom, top))
        low, high = np.maximum(bottom, 0.0), np.maximum(top, 0.0)
    return found
