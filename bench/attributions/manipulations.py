"""What attacks on heat maps want: a loss to descend, and a score on the attacked net by which the best iterate is kept.

Each attack is a pydantic model, named by its `kind` in a suite. Losses and scores are sums and means over one
example's own map, so that no example depends on its batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from bench.attributions.heat_maps import divided_by_max, divided_by_mean, mass_centres
from bench.attributions.similarity import PreparedMaps
from bench.core.bounds import Steps
from bench.core.toml_files import Section

Optimizer = Literal["adam", "sign"]


@dataclass(frozen=True, slots=True)
class Goal:
    """What one attack aims at, for a batch.

    Attributes:
        maps: (N, H, W) the clean heat maps of the attacked net.
        logits: (N, K) its clean logits.
        target: (N, H, W) the map that is aimed at, or a mask; None where an attack has none.
        top: (N, k) the places of the clean maps' largest pixels.
        centres: (N, 2) the clean maps' centres of mass.
    """

    maps: Tensor
    logits: Tensor
    target: Tensor | None
    top: Tensor
    centres: Tensor

    @property
    def target_map(self) -> Tensor:
        """The target, of an attack that has one."""
        if self.target is None:
            raise ValueError("this attack needs a target map")
        return self.target


class MapAttack(Section, ABC):
    """One attack on heat maps and its parameters, as a suite pins them."""

    optimizer: ClassVar[Optimizer] = "sign"
    """How the loss is descended: Adam at 4 eps over steps (LGA, section 4.4), or sign steps."""
    random_start: ClassVar[bool] = False
    """Whether it starts at a keyed uniform point of the ball in place of the image."""
    kind: str
    steps: Steps = 100

    def betas(self) -> list[float]:
        """The softplus twin's beta at each step, for nets with ReLU."""
        return [20.0] * self.steps

    def target(self, clean: Tensor, donors: Tensor) -> Tensor | None:  # noqa: ARG002
        """The target map or mask, from the clean maps (N, H, W) and the maps of other images (N, H, W).

        Similarity to it is reported (TAPS); None where the attack aims at no map.
        """
        return None

    @abstractmethod
    def loss(self, maps: Tensor, logits: Tensor, goal: Goal) -> Tensor:
        """(N,) to be made small; `maps` (N, H, W) and `logits` with their graph."""

    def score(self, maps: Tensor, goal: Goal) -> Tensor:
        """(N,) by which iterates are compared on the attacked net, smaller is stronger; `maps` (N, H, W), detached."""
        return self.loss(maps, goal.logits, goal)


class FrameTarget(MapAttack):
    """Adam towards a map that is one on the border and zero inside (LGA, section 4.4).

    The border is 5 of 32 pixels wide, as a share of the smaller side. Half of the loss is the squared distance of the
    max-normalised map to the frame, half the mean squared change of the logits.
    """

    kind: Literal["frame"] = "frame"
    optimizer: ClassVar[Optimizer] = "adam"
    map_weight: float = Field(default=0.5, gt=0, le=1)
    width_share: float = Field(default=5 / 32, gt=0, lt=0.5)

    def target(self, clean: Tensor, donors: Tensor) -> Tensor:  # noqa: ARG002
        return frame_map(clean, self.width_share)

    def loss(self, maps: Tensor, logits: Tensor, goal: Goal) -> Tensor:
        change = (logits - goal.logits).square().mean(1)
        return self.map_weight * self.score(maps, goal) + (1 - self.map_weight) * change

    def score(self, maps: Tensor, goal: Goal) -> Tensor:
        return (divided_by_max(maps) - goal.target_map).square().sum((1, 2))


class TargetImage(MapAttack):
    """Adam towards the map of another image (Dombrowski et al. 2019), the twin's beta growing geometrically.

    Differs from the published attack in staying inside the ball, with the frame attack's step size. The weights are
    theirs, 1e11 and 1e6 at 224x224 and 1,000 classes, brought to maps of mean one and to the sum over classes: 25 on
    the softmax for each 1 on the map.
    """

    kind: Literal["target_image"] = "target_image"
    optimizer: ClassVar[Optimizer] = "adam"
    output_weight: float = Field(default=25.0, ge=0, le=1e12)
    first_beta: float = Field(default=10.0, gt=1e-6, le=1e6)
    last_beta: float = Field(default=100.0, gt=1e-6, le=1e6)

    def betas(self) -> list[float]:
        growth = self.last_beta / self.first_beta
        return [self.first_beta * growth ** (step / max(1, self.steps - 1)) for step in range(self.steps)]

    def target(self, clean: Tensor, donors: Tensor) -> Tensor:  # noqa: ARG002
        return donors

    def loss(self, maps: Tensor, logits: Tensor, goal: Goal) -> Tensor:
        change = (logits.softmax(1) - goal.logits.softmax(1)).square().sum(1)
        return self.score(maps, goal) + self.output_weight * change

    def score(self, maps: Tensor, goal: Goal) -> Tensor:
        return (divided_by_mean(maps) - divided_by_mean(goal.target_map)).square().mean((1, 2))


class TopK(MapAttack):
    """Sign steps that empty the clean map's top-k pixels (Ghorbani, Abid, Zou 2019); keeps the least intersection."""

    kind: Literal["top_k"] = "top_k"

    def loss(self, maps: Tensor, logits: Tensor, goal: Goal) -> Tensor:  # noqa: ARG002
        return divided_by_mean(maps).flatten(1).gather(1, goal.top).mean(1)

    def score(self, maps: Tensor, goal: Goal) -> Tensor:
        k, pixels = goal.top.shape[1], maps.shape[1] * maps.shape[2]
        prepared = PreparedMaps(maps, k / pixels)
        chosen = torch.zeros_like(prepared.scaled).scatter_(1, prepared.top, 1.0)
        return chosen.gather(1, goal.top).mean(1)


class MassCentre(MapAttack):
    """Sign steps that move the map's centre of mass away (Ghorbani, Abid, Zou 2019); keeps the largest shift.

    It starts at random, since the squared shift's gradient is zero at the image itself.
    """

    kind: Literal["mass_centre"] = "mass_centre"
    random_start: ClassVar[bool] = True

    def loss(self, maps: Tensor, logits: Tensor, goal: Goal) -> Tensor:  # noqa: ARG002
        return -(mass_centres(maps) - goal.centres).square().sum(1)


class TargetRegion(MapAttack):
    """Sign steps that bring the map's mass into a region (Ghorbani, Abid, Zou 2019): the image's emptiest quarter."""

    kind: Literal["target_region"] = "target_region"

    def target(self, clean: Tensor, donors: Tensor) -> Tensor:  # noqa: ARG002
        return emptiest_quarter(clean)

    def loss(self, maps: Tensor, logits: Tensor, goal: Goal) -> Tensor:  # noqa: ARG002
        return -(divided_by_mean(maps) * goal.target_map).mean((1, 2))


class RandomSign(MapAttack):
    """The control: eps times random signs; of `steps` draws, the first that keeps the prediction."""

    kind: Literal["random_sign"] = "random_sign"
    steps: Steps = 10

    def loss(self, maps: Tensor, logits: Tensor, goal: Goal) -> Tensor:
        raise NotImplementedError  # a control descends nothing

    def score(self, maps: Tensor, goal: Goal) -> Tensor:  # noqa: ARG002
        return torch.zeros_like(maps[:, 0, 0])


AnyMapAttack = Annotated[
    FrameTarget | TargetImage | TopK | MassCentre | TargetRegion | RandomSign, Field(discriminator="kind")
]
"""Any attack, told apart by its kind; for suites."""

MANIPULATIONS: dict[str, type[MapAttack]] = {
    attack.model_fields["kind"].default: attack
    for attack in (FrameTarget, TargetImage, TopK, MassCentre, TargetRegion, RandomSign)
}


def frame_map(like: Tensor, width_share: float) -> Tensor:
    """One on a border of `width_share` of the smaller side, at least a pixel, zero inside; as `like` (N, H, W)."""
    height, width = like.shape[1:]
    border = max(1, round(width_share * min(height, width)))
    frame = torch.ones_like(like)
    frame[:, border : height - border, border : width - border] = 0.0
    return frame


def emptiest_quarter(maps: Tensor) -> Tensor:
    """One on the quadrant that holds the least of each map's mass, zero elsewhere; (N, H, W)."""
    height, width = maps.shape[1:]
    masks = []
    for rows in (slice(0, height // 2), slice(height - height // 2, height)):
        for columns in (slice(0, width // 2), slice(width - width // 2, width)):
            mask = maps.new_zeros(height, width)
            mask[rows, columns] = 1.0
            masks.append(mask)
    quarters = torch.stack(masks)
    mass = torch.einsum("nhw,qhw->nq", divided_by_max(maps), quarters)
    return quarters[mass.argmin(1)]
