"""Study files: a paper's study declared as data: models, suites, figures and the claims with what decides each."""

from __future__ import annotations

import graphlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from bench.catalog.cards import NAME
from bench.catalog.locations import shipped
from bench.core.errors import BenchError
from bench.core.names import require_known, unknown_name
from bench.core.toml_files import Section, read_toml, validate
from bench.studies.names import Group, MetricName
from bench.studies.pictures import Picture
from bench.studies.scales import Scale, extended

ScaleName = Literal["quick", "standard", "reduced", "paper"]


class _Claim(Section):
    id: str = NAME
    text: str
    published: str = ""
    """The paper's own value, with its source; empty where none could be recovered."""
    ours: bool = False
    """A control or a question of ours, which no paper has a value of."""
    kind: Literal["claim", "null", "difference_of_differences", "check"] = "claim"
    """`null`: the effect is within the margin of 0. `check`: an identity or a cost measured here, no claim."""
    gates: list[str] = Field(default_factory=list)
    """Claims that this one rests on: one that is not supported leaves it undecided."""
    margin: float = 0.0
    headline: bool = False
    """One of those that verdict.md begins with."""
    scales: list[ScaleName] = Field(default_factory=list)
    """The scales at which it is judged; none: at all of them."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> _Claim:
        if self.ours and self.published:
            raise ValueError(f"{self.id}: what is ours has no published value")
        if self.margin and isinstance(self, Correlation | Tilt | StepCosts):
            raise ValueError(f"{self.id}: a {self.statistic} claim is held against 0 and takes no margin")
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
    """A method as a curve: groups of seeds by its strength; `tuning` is its recipe in tuning.csv.

    One of the two that a claim compares may have one strength alone.
    """

    name: str
    strengths: list[Group] = Field(min_length=1)
    tuning: str


class Front(_Claim):
    """At equal `matched` (clean accuracy, gradient norm) the metric of `better` is higher than that of `worse`."""

    statistic: Literal["front"]
    of: MetricName
    matched: MetricName
    better: Method
    worse: Method

    @model_validator(mode="after")
    def _has_a_curve(self) -> Front:
        if len(self.better.strengths) == len(self.worse.strengths) == 1:
            raise ValueError(f"{self.id}: one of the two methods needs two strengths")
        return self


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


class StepCosts(_Claim):
    """A training step of recipe `better` costs less than one of `worse`: their share of seconds, or of memory kept.

    Taken on the machine that judges, at the recipes' own parameters and the data set's own net.
    """

    statistic: Literal["step_cost"]
    kind: Literal["check"] = "check"
    better: str
    worse: str
    quantity: Literal["seconds", "memory"]


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
    Difference | Ordering | Front | Correlation | Tilt | Stability | ScaleInvariance | Bound | StepCosts,
    Field(discriminator="statistic"),
]


class Experiment(Section):
    """A table or figure of the paper, and the runs of the study that stand for it."""

    what: str
    suites: list[str] = Field(default_factory=list)
    """The claims' names of the suites; none: nothing is run, as `what` says."""
    models: list[str] = Field(default_factory=lambda: ["*"])
    """Ids, or patterns, without the scale's prefix."""


FigureName = Literal["robustness", "tilt", "manifold", "roar"]


class Study(Section):
    """A study, validated; unknown keys are refused."""

    schema_version: Literal[1]
    name: str = NAME
    paper: str
    dataset: str = NAME
    differences: list[str]
    figures: list[FigureName]
    scales: Annotated[dict[ScaleName, Scale], BeforeValidator(extended), Field(min_length=1)]
    claims: list[Claim] = Field(min_length=1)
    pictures: list[Picture] = Field(default_factory=list)
    experiments: list[Experiment] = Field(default_factory=list)
    """Every table and figure that the paper has on this data set."""

    @model_validator(mode="after")
    def _claims_have_names_of_their_own(self) -> Study:
        names = [claim.id for claim in self.claims]
        if len(set(names)) != len(names):
            raise ValueError("two claims have the same id")
        unknown = [f"{claim.id}: {gate}" for claim in self.claims for gate in claim.gates if gate not in names]
        if unknown:
            raise ValueError(f"gates that are no claims: {', '.join(unknown)}")
        rests = [(claim, gate) for claim in self.claims for gate in self.claims if gate.id in claim.gates]
        if any(gate.scales and not set(claim.scales or self.scales) <= {*gate.scales} for claim, gate in rests):
            raise ValueError("a claim that others rest on is judged wherever they are")
        try:
            graphlib.TopologicalSorter({claim.id: claim.gates for claim in self.claims}).prepare()
        except graphlib.CycleError as error:
            raise ValueError(f"gates rest on each other: {', '.join(error.args[1])}") from error
        return self

    def claims_at(self, scale: str) -> list[Claim]:
        """Those that are judged at a scale."""
        return [claim for claim in self.claims if not claim.scales or scale in claim.scales]

    def scale(self, name: str) -> Scale:
        """Raises BenchError for a scale that the study does not have."""
        for known, scale in self.scales.items():
            if known == name:
                return scale.resolved()
        others = [one.dataset for one in _of_paper(self.name.partition("-")[0]) if name in one.scales]
        if others:
            has = f"study {self.name} has {', '.join(self.scales)}"
            raise BenchError(f"{has}; the scale {name} is on {' and '.join(others)}.", option="dataset")
        raise unknown_name(name, self.scales, f"scale of study {self.name}")


def read_study(path: Path) -> Study:
    """Read one study file; raises BenchError."""
    return validate(Study, read_toml(path, "study"), f"study {path}")


def find_study(name: str, dataset: str | None = None) -> Study:
    """A shipped study, or one of the user's by the path of its TOML file; raises BenchError.

    Args:
        dataset: the data set of a paper's study; without it the one that is called as the paper is.
    """
    if name.endswith(".toml"):
        study = read_study(Path(name))
        if dataset not in (None, study.dataset):
            raise BenchError(f"study {name} is of {study.dataset}.", option="dataset")
        return study
    known = _shipped()
    require_known(name, known, "study")
    if dataset is None:
        return read_study(known[name])
    by_dataset = {study.dataset: study for study in _of_paper(name)}
    require_known(dataset, by_dataset, f"data set of study {name}")
    return by_dataset[dataset]


def _shipped() -> dict[str, Path]:
    return {path.stem: path for path in sorted((shipped("suites") / "studies").glob("*.toml"))}


def _of_paper(name: str) -> list[Study]:
    """The shipped studies of a paper, on its stand-in and on its own data sets."""
    return [read_study(path) for stem, path in _shipped().items() if stem == name or stem.startswith(f"{name}-")]
