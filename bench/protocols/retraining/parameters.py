"""What a suite of ROAR or KAR pins: the nets, what each may see, and how all of them are trained."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, field_validator

from bench.attributions.pixel_scores import MapName, Scalar
from bench.core.bounds import Count, Steps
from bench.core.errors import BenchError
from bench.core.toml_files import Section
from bench.data import known_spec
from bench.training.retraining import Mask, RetrainSchedule

Control = Literal["mask_only", "blurred", "sobel", "random_blocks"]


@dataclass(frozen=True, slots=True)
class Group:
    """Nets that are trained side by side: one map, all shares, some seeds."""

    map: str
    seeds: tuple[int, ...]

    @property
    def of_the_model(self) -> bool:
        """Whether the map depends on the judged model; what does not is shared by all models."""
        return self.map not in ("unmasked", "random", "sobel", "random_blocks")


class Parameters(Section):
    """What a suite pins."""

    direction: Literal["roar", "kar"]
    shares: list[float] = Field(min_length=1, max_length=100)
    attributions: list[MapName] = Field(min_length=1)
    scalar: Scalar = "cross_entropy"
    controls: list[Control] = Field(default_factory=list)
    blur_sigma: float = Field(default=1.5, gt=0, le=1000)
    seeds: int = Field(ge=2, le=1000)
    training_examples: Count | None = None
    architecture: str
    architecture_parameters: dict[str, Any] = Field(default_factory=dict)
    epochs: Steps
    batch_size: Count
    learning_rate: float = Field(gt=0)
    decay: bool
    precision: Literal["float32", "bfloat16"] = "float32"
    nets_side_by_side: int = Field(default=25, gt=0, le=1000)

    @field_validator("shares")
    @classmethod
    def _are_shares(cls, shares: list[float]) -> list[float]:
        if not all(0.0 < share < 1.0 for share in shares):
            raise ValueError("every share must lie between 0 and 1, neither included, e.g. 0.3")
        if sorted(set(shares)) != shares:
            raise ValueError("shares must grow and none may be given twice")
        return shares

    def groups(self) -> list[Group]:
        """All nets, cut into what is trained at once."""
        main = self.attributions[0]
        free = [name for name in ("sobel", "random_blocks") if name in self.controls]
        bound = [f"{name}:{main}" for name in ("blurred", "mask_only") if name in self.controls]
        at_once = max(1, self.nets_side_by_side // len(self.shares))
        seeds = range(self.seeds)
        chunks = [tuple(seeds[begin : begin + at_once]) for begin in range(0, len(seeds), at_once)]
        maps = ["random", *free, *self.attributions, *bound]
        return [Group("unmasked", tuple(seeds)), *(Group(name, chunk) for name in maps for chunk in chunks)]

    def nets(self, group: Group) -> int:
        """How many a group has."""
        return len(group.seeds) * (1 if group.map == "unmasked" else len(self.shares))

    def masks(self, group: Group, pixels: int) -> list[Mask]:
        """What the nets of a group may see, of images of so many pixels."""
        if group.map == "unmasked":
            return [Mask(0, pixels)]
        numbers = [count(share, pixels) for share in self.shares]
        if self.direction == "kar" and group.map == "random":
            # the same nets as ROAR's baseline where the shares are symmetric: what is kept is random either way
            return [Mask(pixels - number, pixels) for number in sorted(numbers, reverse=True)]
        return [Mask(0, number) if self.direction == "kar" else Mask(number, pixels) for number in numbers]

    def require_images(self, shape: tuple[int, ...], name: str) -> None:
        """Raise BenchError if two shares leave as many pixels of images (C, H, W), or go by the same per cent."""
        pixels = shape[-2] * shape[-1]
        seen: dict[str, float] = {}
        for share in self.shares:
            kept = count(share, pixels) if self.direction == "kar" else pixels - count(share, pixels)
            printed = f"{100 * (1.0 - kept / pixels):.0f} %"
            if printed in seen:
                raise BenchError(
                    f"shares {seen[printed]} and {share} both remove {printed} of the {pixels} pixels of {name}; leave "
                    "one out."
                )
            seen[printed] = share

    def schedule(self, dataset: str) -> RetrainSchedule:
        """How nets are trained on a data set; raises BenchError for one of the user's own."""
        parameters = known_spec(dataset, "retraining").net_parameters | self.architecture_parameters
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(RetrainSchedule)}
        return RetrainSchedule(**own | {"architecture_parameters": parameters})


def count(share: float, pixels: int) -> int:
    """How many pixels a share is: those strictly above the (1 - share) percentile of distinct scores.

    103, 307, 512, 717 and 921 of 1,024 for 10, 30, 50, 70 and 90 % (Bridging, section 3).
    """
    return pixels - 1 - math.floor((1.0 - share) * (pixels - 1) + 1e-9)
