"""Study files: a paper's study declared as data: models, suites, figures and the claims with what decides each."""

from __future__ import annotations

import graphlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from bench.catalog.cards import NAME
from bench.catalog.locations import shipped
from bench.core.bounds import Count
from bench.core.names import unknown_name
from bench.core.toml_files import Section, read_toml, validate
from bench.studies.names import Group, MetricName, expand
from bench.studies.pictures import Picture


class _Claim(Section):
    id: str = NAME
    text: str
    published: str = ""
    """The paper's own value, with its source; empty where none could be recovered."""
    kind: Literal["claim", "null", "difference_of_differences", "check"] = "claim"
    """`null`: the effect is within the margin of 0. `check`: an identity, a check of the implementation, no claim."""
    gates: list[str] = Field(default_factory=list)
    """Claims that this one rests on: one that is not supported leaves it undecided."""
    margin: float = 0.0
    headline: bool = False
    """One of those that verdict.md begins with."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> _Claim:
        if self.kind == "null" and self.margin <= 0:
            raise ValueError(f"{self.id}: a null claim needs a margin above 0")
        if (self.kind == "difference_of_differences") != (getattr(self, "than", None) is not None):
            raise ValueError(f"{self.id}: a difference of differences, and only that, needs `than`")
        if self.kind == "null" and not isinstance(self, Difference | Stability | Front):
            raise ValueError(f"{self.id}: a null claim is a difference, stability or front")
        return self


class Pair(Section):
    """A metric of two groups; `against` is the one of `worse`, where it is another than that of `better`.

    Without `worse` it is the metric of `better` alone, which `minus` may hold against a number.
    """

    of: MetricName
    better: Group
    worse: Group | None = None
    against: MetricName | None = None


class Difference(_Claim, Pair):
    """`better` has a higher value than `worse`, by more than `margin` (negative: at most that much lower).

    A difference of differences is higher than that of `than`.
    """

    statistic: Literal["difference"]
    than: Pair | None = None


class Ordering(_Claim):
    """The metric rises from each group to the next."""

    statistic: Literal["ordering"]
    of: MetricName
    models: list[Group] = Field(min_length=2)


class Method(Section):
    """A method as a curve: groups of seeds by its strength; `tuning` is its recipe in tuning.csv."""

    name: str
    strengths: list[Group] = Field(min_length=2)
    tuning: str


class Front(_Claim):
    """At equal `matched` (clean accuracy, gradient norm) the metric of `better` is higher than that of `worse`."""

    statistic: Literal["front"]
    of: MetricName
    matched: MetricName
    better: Method
    worse: Method


class Correlation(_Claim):
    """Spearman's correlation of two metrics over models (groups: their means) has a sign."""

    statistic: Literal["correlation"]
    first: MetricName
    second: MetricName
    models: list[Group] = Field(min_length=3)
    sign: Literal["positive", "negative"]


class Tilt(_Claim):
    """A quantity of the boundary-tilting experiment falls with the strength of adversarial training."""

    statistic: Literal["tilt"]
    quantity: Literal["tilt_from_means", "perturbation_angle", "minor_offset", "nearest_distance"]


class Stability(_Claim):
    """Gradients under uniform noise of `radius` / 255 are more alike (cosine) for `better` than for `worse`."""

    statistic: Literal["stability"]
    better: Group
    worse: Group
    radius: float = Field(gt=0)


class ScaleInvariance(_Claim):
    """Scaling the last layer by `factor` scales the LGA criterion `criterion` by `expected`."""

    statistic: Literal["scale_invariance"]
    kind: Literal["check"] = "check"
    model: str
    criterion: Literal["l2", "cosine"]
    factor: float = Field(gt=0)
    expected: float


class Bound(_Claim):
    """LGA's bound by the Hessian at the image, which holds to first order in uniform noise of `radius` / 255.

    `holds`: the share of images on which the cosine distance is at most the bound is above `margin`. `follows`: the
    distance's rank correlation with the bound is higher than with the Hessian's norm alone.
    """

    statistic: Literal["bound"]
    model: Group
    radius: float = Field(gt=0)
    quantity: Literal["holds", "follows"] = "holds"


Claim = Annotated[
    Difference | Ordering | Front | Correlation | Tilt | Stability | ScaleInvariance | Bound,
    Field(discriminator="statistic"),
]


class TrainedModel(Section):
    """A model that the study trains, if asked to, where the registry has none of that id."""

    id: str = NAME
    recipe: str
    seed: int = Field(default=0, ge=0)
    parameters: dict[str, Any] = Field(default_factory=dict)
    minutes: float = Field(gt=0)

    @property
    def method(self) -> str:
        """What its training seeds have in common."""
        return self.id.removesuffix(f"_seed{self.seed}")


class Scale(Section):
    """How much of the study is done."""

    suites: dict[str, str]
    """What the claims call a suite -> the suite at this scale."""
    models: list[str] = Field(min_length=1)
    """Ids, or patterns."""
    examples: dict[str, Count] = Field(default_factory=dict)
    seconds: dict[str, float]
    """The claims' name of a suite -> seconds for one model on two idle cores of the reference machine."""
    train: list[TrainedModel] = Field(default_factory=list)
    only: dict[str, list[str]] = Field(default_factory=dict)
    """The claims' name of a suite -> models, ids or patterns, where not all are run under it."""

    def under(self, role: str, models: Sequence[str]) -> list[str]:
        """Those of the models that are run under a suite."""
        wanted = set(expand(self.only.get(role, ["*"]), models))
        return [name for name in models if name in wanted]

    @model_validator(mode="after")
    def _every_suite_has_a_time(self) -> Scale:
        missing = [name for name in self.suites if name not in self.seconds]
        if missing:
            raise ValueError(f"seconds lacks {', '.join(missing)}")
        unknown = [name for name in self.only if name not in self.suites]
        if unknown:
            raise ValueError(f"only names no suite of the scale: {', '.join(unknown)}")
        return self


FigureName = Literal["robustness", "tilt", "manifold", "roar"]


class Study(Section):
    """A study, validated; unknown keys are refused."""

    schema_version: Literal[1]
    name: str = NAME
    paper: str
    dataset: str = NAME
    differences: list[str]
    figures: list[FigureName]
    scales: dict[Literal["quick", "standard", "paper"], Scale] = Field(min_length=1)
    claims: list[Claim] = Field(min_length=1)
    pictures: list[Picture] = Field(default_factory=list)

    @model_validator(mode="after")
    def _claims_have_names_of_their_own(self) -> Study:
        names = [claim.id for claim in self.claims]
        if len(set(names)) != len(names):
            raise ValueError("two claims have the same id")
        unknown = [f"{claim.id}: {gate}" for claim in self.claims for gate in claim.gates if gate not in names]
        if unknown:
            raise ValueError(f"gates that are no claims: {', '.join(unknown)}")
        try:
            graphlib.TopologicalSorter({claim.id: claim.gates for claim in self.claims}).prepare()
        except graphlib.CycleError as error:
            raise ValueError(f"gates rest on each other: {', '.join(error.args[1])}") from error
        return self

    def scale(self, name: str) -> Scale:
        """Raises BenchError for a scale that the study does not have."""
        for known, scale in self.scales.items():
            if known == name:
                return scale
        raise unknown_name(name, self.scales, f"scale of study {self.name}")


def read_study(path: Path) -> Study:
    """Read one study file; raises BenchError."""
    return validate(Study, read_toml(path, "study"), f"study {path}")


def find_study(name: str) -> Study:
    """A shipped study by name, or one of the user's by the path of its TOML file; raises BenchError."""
    if name.endswith(".toml"):
        return read_study(Path(name))
    known = {path.stem: path for path in sorted((shipped("suites") / "studies").glob("*.toml"))}
    if name not in known:
        raise unknown_name(name, known, "study")
    return read_study(known[name])
