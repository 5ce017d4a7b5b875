"""What a recipe is: a method with its parameters, and a schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from bench.core.toml_files import Section
from bench.data.specs import DatasetSpec
from bench.training.methods import Method


class Schedule(Section):
    """Optimiser, learning rate, length and net of a training."""

    epochs: int = Field(default=15, gt=0, le=100_000, description="passes over the training examples")
    batch_size: int = Field(default=128, gt=0, lt=1 << 31, description="examples a step")
    optimizer: Literal["adamw", "adam", "sgd"] = Field(
        default="adamw", description="adamw, adam, or sgd with Nesterov momentum 0.9"
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="peak learning rate")
    weight_decay: float = Field(
        default=1e-4, ge=0, description="decoupled for adamw; for adam and sgd coupled, that is added to the gradient"
    )
    schedule: Literal["cosine", "multistep"] = Field(
        default="cosine", description="learning rate after the warm-up: half a cosine to 0, or steps at the milestones"
    )
    milestones: list[Annotated[int, Field(gt=0)]] = Field(
        default_factory=list, description="multistep: epochs after which the learning rate is multiplied by gamma"
    )
    gamma: float = Field(default=0.1, gt=0, le=1, description="multistep: factor at each milestone")
    warmup_share: float = Field(default=0.05, ge=0, lt=1, description="share of the steps with growing learning rate")
    gradient_clip: float = Field(default=0.0, ge=0, description="largest global L2 norm of the gradient; 0: none")
    architecture: str = Field(default="small_cnn", description="name of a registered net")
    activation: Literal["relu", "softplus"] = Field(default="relu", description="activation of the net")
    softplus_beta: float = Field(default=3.0, gt=0, description="sharpness of softplus")
    architecture_parameters: dict[str, Any] = Field(
        default_factory=dict, description="further parameters of the net, e.g. {depth = 28, widen = 10}"
    )
    augmentation: Literal["none", "crop_flip"] = Field(
        default="none", description="crop_flip: pad by 4, random crop, random flip; target maps move along"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="bfloat16: mixed precision, for methods without second derivatives"
    )
    compile: bool = Field(default=False, description="torch.compile the net, for methods without second derivatives")
    checkpoint: Literal["last", "best_validation", "best_test"] = Field(
        default="last", description="epoch to publish; best_test, as in the IR code, makes test accuracies optimistic"
    )


@dataclass(frozen=True, slots=True)
class RecipeTemplate:
    """A named recipe before a data set is chosen.

    `datasets` overrides parameters or schedule per data set, and after that per net: keys are `cifar10` and
    `cifar10/lenet`.
    """

    name: str
    summary: str
    method: type[Method]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    schedule: Mapping[str, Any] = field(default_factory=dict)
    datasets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe ready to train: every parameter has its final value."""

    name: str
    summary: str
    method: Method
    schedule: Schedule

    def architecture_parameters(self, spec: DatasetSpec) -> dict[str, Any]:
        """Parameters of the net for a data set."""
        parameters = spec.net_parameters | {"activation": self.schedule.activation}
        if self.schedule.activation == "softplus":
            parameters["softplus_beta"] = self.schedule.softplus_beta
        return parameters | self.schedule.architecture_parameters
