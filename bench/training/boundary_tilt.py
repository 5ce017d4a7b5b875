"""The boundary-tilting experiment of the Bridging paper (section 2.2): two thin clouds, tilted against each other.

A linear boundary can separate the two classes at many angles. Standard training leaves it tilted, so that adversarial
perturbations leave the data; adversarial training turns it towards the direction between the class means.
All nets (three strengths, several seeds) are trained side by side; gradients of so small a net are written out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.core.keyed_random import stream_key

STRENGTHS: dict[str, float] = {"standard": 0.0, "weak": 0.25, "strong": 0.5}
"""Name of the net -> L2 radius of its adversarial training; data in [-1, 1]."""
_HIDDEN = 128
_STEP_SIZE = 2.0
_STEPS = 40
_ATTACK_EPS = 1.0
_BATCH = 100
_EPOCHS = 10
_POINTS = 3000
_TINY = 1e-8


@dataclass(frozen=True, slots=True)
class TiltData:
    """Points (6000, 2) in [-1, 1] with labels, class means (2, 2), and the unit axes along and across the clouds."""

    points: Tensor
    labels: Tensor
    means: Tensor
    major: Tensor
    minor: Tensor


@dataclass(frozen=True, slots=True)
class TiltedNet:
    """What one net's boundary is like; angles in degrees, distances in units of the data.

    Attributes:
        tilt: between the boundary's normal, where the segment of the class means crosses it, and the major axis.
        tilt_from_means: between that normal and the difference of the class means.
        perturbation_angle: mean angle of the adversarial perturbations to the major axis.
        minor_offset: mean distance of adversarial points from the axis line of the class they are taken for.
        nearest_distance: mean distance of adversarial points to the nearest clean point.
        flip_rate: share of points whose class the attack changes.
    """

    strength: str
    seed: int
    tilt: float
    tilt_from_means: float
    perturbation_angle: float
    minor_offset: float
    nearest_distance: float
    accuracy: float
    flip_rate: float


@dataclass(frozen=True, slots=True)
class TiltStudy:
    """All nets, and for the figure those of the first seed: weights and adversarial points by strength."""

    data: TiltData
    nets: list[TiltedNet]
    weights: dict[str, Weights]
    adversarial: dict[str, Tensor]


class Weights(NamedTuple):
    """G nets 2-128-2 with ReLU: (G, 2, 128), (G, 1, 128), (G, 128, 2) and (G, 1, 2)."""

    first: Tensor
    first_bias: Tensor
    second: Tensor
    second_bias: Tensor

    def of(self, number: int) -> Weights:
        return Weights(*(value[number : number + 1] for value in self))


def make_data() -> TiltData:
    """The paper's two Gaussian clouds, drawn with its seed, scaled to [-1, 1] by one global minimum and maximum."""
    random = np.random.RandomState(0)  # the generator of the published code, for the same points
    covariance = [[0.1, -0.01], [-0.01, 0.002]]
    clouds = [random.multivariate_normal(mean, covariance, _POINTS) for mean in ([1.2, 0.1], [-1.2, -0.1])]
    points = np.concatenate(clouds)
    points = 2.0 * (points - points.min()) / (points.max() - points.min()) - 1.0
    labels = torch.arange(2).repeat_interleave(_POINTS)
    tensor = torch.from_numpy(points).to(torch.float32)
    means = torch.stack([tensor[labels == label].mean(0) for label in (0, 1)])
    centred = tensor - means[labels]
    _, axes = torch.linalg.eigh(centred.t() @ centred)
    return TiltData(tensor, labels, means, axes[:, 1], minor=axes[:, 0])


def logits(weights: Weights, points: Tensor) -> Tensor:
    """(G, N, 2) points -> (G, N, 2) logits."""
    hidden = torch.baddbmm(weights.first_bias, points, weights.first).relu_()
    return torch.baddbmm(weights.second_bias, hidden, weights.second)


def input_gradients(weights: Weights, points: Tensor, output_gradients: Tensor | None, labels: Tensor | None) -> Tensor:
    """Gradients (G, N, 2) with respect to the points, of the cross-entropy at `labels` or along `output_gradients`."""
    hidden = torch.baddbmm(weights.first_bias, points, weights.first)
    active = hidden.sign().clamp_(min=0.0)
    if output_gradients is None:
        assert labels is not None  # noqa: S101
        out = torch.baddbmm(weights.second_bias, hidden.relu_(), weights.second)
        # two classes: softmax minus one-hot, without cancellation
        other = torch.sigmoid((out[..., 1] - out[..., 0]) * (1.0 - 2.0 * labels))
        signed = other * (2.0 * labels - 1.0)
        output_gradients = torch.stack([signed, -signed], dim=-1)
    through = torch.bmm(output_gradients, weights.second.transpose(1, 2)).mul_(active)
    return torch.bmm(through, weights.first.transpose(1, 2))


def attack(weights: Weights, points: Tensor, labels: Tensor, eps: Tensor) -> Tensor:
    """The paper's L2 attack: 40 steps of length 2, projected onto the ball and onto [-1, 1]; no random start.

    Args:
        points: (G, N, 2).
        labels: (G, N) float.
        eps: (G, 1, 1); 0 leaves the points where they are.
    """
    moved = points
    for _ in range(_STEPS):
        gradient = input_gradients(weights, moved, None, labels)
        length = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
        delta = moved + _STEP_SIZE * gradient / length.clamp_min(1e-30) - points
        size = torch.linalg.vector_norm(delta, dim=-1, keepdim=True)
        moved = (points + delta * torch.minimum(size, eps) / (size + _TINY)).clamp_(-1.0, 1.0)
    return moved


def run_tilt(seeds: Sequence[int] = range(5)) -> TiltStudy:
    """Train and attack all nets; a few seconds."""
    data = make_data()
    strengths = list(STRENGTHS)
    weights = _train(data, [eps for eps in STRENGTHS.values() for _ in seeds], [*seeds] * len(strengths))
    count = len(weights.first)
    points, labels = data.points.expand(count, -1, -1), data.labels.float().expand(count, -1)
    adversarial = attack(weights, points, labels, torch.full((count, 1, 1), _ATTACK_EPS))
    nets = [
        _describe(data, weights.of(number), adversarial[number], strength, seed=seed)
        for number, (strength, seed) in enumerate(itertools.product(strengths, seeds))
    ]
    shown = {name: position * len(seeds) for position, name in enumerate(strengths)}
    return TiltStudy(
        data,
        nets,
        {name: weights.of(number) for name, number in shown.items()},
        {name: adversarial[number] for name, number in shown.items()},
    )


def _train(data: TiltData, radii: list[float], seeds: list[int]) -> Weights:
    # Glorot-uniform weights and zero biases; the nets of one seed start alike at every strength
    limit = math.sqrt(6.0 / (2 + _HIDDEN))
    generators = [_generator("init", seed) for seed in seeds]
    first, second = (
        torch.stack([(2 * torch.rand(shape, generator=generator) - 1) * limit for generator in generators])
        for shape in ((2, _HIDDEN), (_HIDDEN, 2))
    )
    weights = Weights(first, torch.zeros(len(seeds), 1, _HIDDEN), second, torch.zeros(len(seeds), 1, 2))
    eps = torch.tensor(radii).view(-1, 1, 1)
    plain = radii.count(0.0)  # these come first and need no attack
    parameters = [value.requires_grad_(True) for value in weights]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)
    orders = torch.stack([torch.randperm(len(data.labels), generator=_generator("order", seed)) for seed in seeds])
    for _ in range(_EPOCHS):
        for chosen in torch.split(orders, _BATCH, dim=1):
            points, labels = data.points[chosen], data.labels[chosen]
            frozen = Weights(*(value.detach()[plain:] for value in parameters))
            moved = attack(frozen, points[plain:], labels[plain:].float(), eps[plain:])
            out = logits(weights, torch.cat([points[:plain], moved]))
            loss = torch.nn.functional.cross_entropy(out.flatten(0, 1), labels.flatten(), reduction="sum")
            optimizer.zero_grad(set_to_none=True)
            (loss / _BATCH).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return Weights(*(value.detach() for value in parameters))


def _generator(purpose: str, seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(stream_key("boundary_tilt", purpose, seed) & ((1 << 63) - 1))


def _describe(data: TiltData, weights: Weights, adversarial: Tensor, strength: str, seed: int) -> TiltedNet:
    normal = _boundary_normal(data, weights)
    delta = adversarial - data.points
    moved = torch.linalg.vector_norm(delta, dim=1) > 1e-6
    before = logits(weights, data.points[None])[0].argmax(1)
    after = logits(weights, adversarial[None])[0].argmax(1)
    offsets = ((adversarial - data.means[1 - data.labels]) @ data.minor).abs()
    nearest = torch.cat([torch.cdist(part, data.points).amin(1) for part in torch.split(adversarial, 500)])
    return TiltedNet(
        strength,
        seed,
        tilt=float(_angle(normal, data.major)),
        tilt_from_means=float(_angle(normal, data.means[0] - data.means[1])),
        perturbation_angle=float(_angle(delta[moved], data.major).mean()),
        minor_offset=float(offsets.mean()),
        nearest_distance=float(nearest.mean()),
        accuracy=float((before == data.labels).float().mean()),
        flip_rate=float((after != before).float().mean()),
    )


def _boundary_normal(data: TiltData, weights: Weights) -> Tensor:
    """The gradient of z0 - z1 where the segment between the class means crosses the boundary."""
    along = torch.linspace(0, 1, 2001)[:, None]
    segment = data.means[0] + along * (data.means[1] - data.means[0])
    out = logits(weights, segment[None])[0]
    crossing = segment[(out[:, 0] - out[:, 1]).abs().argmin()]
    return input_gradients(weights, crossing.view(1, 1, 2), torch.tensor([[[1.0, -1.0]]]), None)[0, 0]


def _angle(vectors: Tensor, axis: Tensor) -> Tensor:
    """Acute angles to an axis, in degrees."""
    cosine = (vectors @ axis).abs() / (torch.linalg.vector_norm(vectors, dim=-1) * torch.linalg.vector_norm(axis))
    return torch.rad2deg(torch.acos(cosine.clamp(max=1.0)))
