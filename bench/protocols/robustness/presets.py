"""Protocols with short parameters, each of which stands for a list of attacks of the protocol `robustness`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from bench.attacks.adapters.foolbox import import_foolbox
from bench.attacks.adapters.pyautoattack import Version
from bench.attacks.boundary.search import Boundary
from bench.attacks.cascade.stages import Stage
from bench.attacks.losses import LossName
from bench.attacks.user_files import UserFile
from bench.catalog.cards import NAME
from bench.core.bounds import Count, OneRadius, Queries, SeveralRadii, Steps
from bench.core.threat import NORMS, Norm
from bench.core.toml_files import Section
from bench.protocols.robustness.plan import Entry, Plan, Radii, ReferenceRadii, plan_of, require_unique_names
from bench.protocols.robustness.protocol import Robustness

_Number = Field(ge=-1e7, le=1e7)
Setting = bool | Annotated[int, _Number] | Annotated[float, _Number] | str
Losses = Annotated[tuple[LossName, ...], Field(min_length=1, max_length=100, strict=False)]


def _sigma_zero(steps: int, rounds: int = 0) -> Entry:
    return Entry("sigma-zero", "sigma_zero", {"steps": steps, "rounds": rounds}, ("l0",))


class SweepAttack(Section):
    """Our own attack over all norms and radii; see bench.attacks.sweep, and its `restarts` for the fields."""

    kind: Literal["sweep"]
    name: str = NAME
    steps: Steps
    losses: Losses
    patience: int = Field(ge=0, lt=1 << 31)
    targets: dict[Norm, Steps] = Field(default_factory=dict)
    polish: int = Field(default=0, ge=0, le=100_000)
    boundary: Boundary | None = None

    def entry(self) -> Entry:
        keywords = self.model_dump(exclude={"kind", "name", "polish", "boundary"}) | {"refine": self.polish}
        if self.boundary is not None:
            keywords["boundary"] = self.boundary
        return Entry("sweep", self.name, keywords)


class TorchattacksAttack(Section):
    """An attack of torchattacks in one norm; see bench.attacks.adapters.torchattacks."""

    kind: Literal["torchattacks"]
    name: str = NAME
    class_name: str
    norm: Norm
    parameters: dict[str, Setting] = Field(default_factory=dict)
    relative_parameters: dict[str, Annotated[float, _Number]] = Field(default_factory=dict)

    def entry(self) -> Entry:
        relative = {"relative_parameters": self.relative_parameters} if self.relative_parameters else {}
        return Entry(f"torchattacks:{self.class_name}", self.name, {**self.parameters, **relative}, (self.norm,))


class SweepRadii(Radii):
    """Radii of one data set; `pixels` are those in L0, numbers of pixels that may change."""

    radii: SeveralRadii = Field(min_length=1)
    pixels: list[Count] = Field(default_factory=list, max_length=100)

    @model_validator(mode="after")
    def _pixels_differ(self) -> SweepRadii:
        if len(set(self.pixels)) != len(self.pixels):
            raise ValueError("a number of pixels is given twice")
        return self


class CrossNormParameters(Section):
    attacks: list[Annotated[SweepAttack | TorchattacksAttack, Field(discriminator="kind")]] = Field(
        min_length=1, max_length=100
    )
    zero_norm_steps: int = Field(default=0, ge=0, le=100_000)
    norms_apart: bool = False
    datasets: dict[str, SweepRadii] = Field(min_length=1)

    @model_validator(mode="after")
    def _fit_together(self) -> CrossNormParameters:
        require_unique_names(self._entries())
        for name, section in self.datasets.items():
            if bool(section.pixels) != bool(self.zero_norm_steps):
                raise ValueError(f"L0 takes both zero_norm_steps and pixels, of each data set; {name} has one of them")
        return self

    def _entries(self) -> list[Entry]:
        entries = [attack.entry() for attack in self.attacks]
        return entries + ([_sigma_zero(self.zero_norm_steps)] if self.zero_norm_steps else [])

    def plan(self) -> Plan:
        pixels = {name: section.pixels for name, section in self.datasets.items() if section.pixels}
        return plan_of(self._entries(), self.datasets, "each", pixels=pixels, norms_apart=self.norms_apart)


class CrossNorm(Robustness):
    """cross_norm: robust accuracy in several norms at several radii, under the sweep and attacks of torchattacks.

    Clean accuracy, robust accuracy per norm and radius, and the union over norms at the reference radii. A suite with
    `zero_norm_steps` has L0 too, by so many steps of sigma-zero, where a data set's `pixels` are numbers of pixels that
    may change, each in all its channels; L0 is no part of the union. With `norms_apart` no norm is searched less
    because of what another has found: see `Plan`.
    Source: IR, section 5 (cross-norm attacks), with verification and the closure over nested balls added.
    """

    parameters_type = CrossNormParameters


class CascadeParameters(Section):
    stages: list[Stage] = Field(min_length=1, max_length=100)
    datasets: dict[str, ReferenceRadii] = Field(min_length=1)

    def entries(self) -> list[Entry]:
        return [Entry("cascade", "cascade", {"stages": tuple(self.stages)})]

    def plan(self) -> Plan:
        return plan_of(self.entries(), self.datasets, "each", verdict="cascade")


class AutoAttackFast(Robustness):
    """autoattack_fast: our cascade at one radius per norm, built to reach AutoAttack's verdicts at a part of its time.

    Robust accuracy under the cascade at the reference radii, and the union over norms.
    """

    parameters_type = CascadeParameters


class UnionParameters(CascadeParameters):
    def plan(self) -> Plan:
        return plan_of(self.entries(), self.datasets, "across_norms", verdict="cascade", probe_every=0)


class Union(Robustness):
    """union: the worst case over norms, per example, at the reference radii; the cascade in each norm.

    Union accuracy, and how many of the examples each norm was the first to break. An example that one norm has broken
    is not attacked in the next, so this costs less than the norms one by one.
    Source of the measure: Tramer and Boneh, "Adversarial training and robustness for multiple perturbations", 2019.
    """

    parameters_type = UnionParameters


class AutoAttackParameters(Section):
    version: Version
    iterations: Steps | None = None
    queries: Queries | None = None
    patient: bool = False
    datasets: dict[str, ReferenceRadii] = Field(min_length=1)

    def plan(self) -> Plan:
        return plan_of(self._entries(), self.datasets, "chained", verdict="autoattack", probe_every=1)

    def _entries(self) -> list[Entry]:
        """The components of the version, in its order, with its settings."""
        steps = {} if self.iterations is None else {"iterations": self.iterations}
        queries = {} if self.queries is None else {"queries": self.queries}
        patient = {"patient": self.patient or self.version == "plus"}
        if self.version == "rand":
            theirs = {"version": "rand", **steps}
            return [Entry(f"pyautoattack:{name}", name, theirs) for name in ("apgd-ce", "apgd-dlr")]
        square = Entry("square", "square", queries | patient)
        fab = Entry("fab-t", "fab-t", steps | patient)
        if self.version == "standard":
            return [Entry("apgd-ce", "apgd-ce", steps), Entry("apgd-t", "apgd-t", steps), fab, square]
        return [
            Entry("apgd-ce", "apgd-ce", {"restarts": 5, **steps}),
            Entry("apgd-dlr", "apgd-dlr", {"restarts": 5, **steps}),
            Entry("pyautoattack:fab", "fab", {"version": "plus", **steps}),
            square,
            Entry("apgd-t", "apgd-t", {"targets": 9, **steps}),
            fab,
        ]


class AutoAttack(Robustness):
    """autoattack: AutoAttack's versions at one radius per norm, with the verdict of each component.

    APGD, FAB-T and Square are our own writing of the distribution's, with its settings, and tested against it one by
    one. In the standard version FAB-T gives up an image's target class, and Square an image, whose progress so far,
    with much slack, cannot reach the radius; `plus`, the suite blackbox and a suite file with `patient = true` spend
    all of them.
    Source: Croce and Hein, ICML 2020 and ICML 2021; Andriushchenko et al., ECCV 2020.
    """

    search_takes_precision = False
    parameters_type = AutoAttackParameters


class BlackBoxParameters(Section):
    queries: Queries
    decision_steps: Steps
    datasets: dict[str, ReferenceRadii] = Field(min_length=1)

    def plan(self) -> Plan:
        entries = [
            Entry("square", "square", {"queries": self.queries, "patient": True}),
            Entry("hop-skip-jump", "hop_skip_jump", {"steps": self.decision_steps}, ("linf", "l2")),
        ]
        return plan_of(entries, self.datasets, "chained", verdict="blackbox", probe_every=4)


class BlackBox(Robustness):
    """blackbox: attacks that need no gradient, Square on the logits and HopSkipJump on the decision.

    Robust accuracy under Square, then HopSkipJump (L-inf and L2 only) on what Square leaves standing. What they find
    does not depend on gradients, so that a number far below the white-box one shows masking; on nets without masking
    they are the weaker attacks.
    Sources: Andriushchenko et al., ECCV 2020 (Square); Chen et al., S&P 2020 (HopSkipJump).
    """

    search_takes_precision = False
    parameters_type = BlackBoxParameters

    def use_program(self, program: UserFile | None) -> None:
        import_foolbox()  # whoever only reads what a run has left needs none
        super().use_program(program)


class LargestRadii(Section):
    """The largest radius of each norm of a data set; images that withstand it count as infinitely far."""

    largest: OneRadius = Field(min_length=1)


class MinimumNormParameters(Section):
    steps: Steps
    rungs: int = Field(gt=1, le=1000)
    ratio: float = Field(gt=1, le=10)
    losses: Losses = ("margin",)
    targets: dict[Norm, Steps] = Field(default_factory=dict)
    boundary: Boundary | None = None
    zero_norm_steps: int = Field(ge=0, le=100_000)
    zero_norm_rounds: int = Field(default=0, ge=0, le=100_000)
    datasets: dict[str, LargestRadii] = Field(min_length=1)

    def plan(self) -> Plan:
        keywords = self.model_dump(include={"steps", "losses", "targets"})
        if self.boundary is not None:
            keywords["boundary"] = self.boundary
        entries = [Entry("sweep", "sweep", keywords, NORMS)]
        if self.zero_norm_steps:
            entries.append(_sigma_zero(self.zero_norm_steps, self.zero_norm_rounds))
        radii = {
            name: {
                norm: [largest / self.ratio**index for index in range(self.rungs)]
                for norm, largest in section.largest.items()
            }
            for name, section in self.datasets.items()
        }
        return Plan(tuple(entries), radii, {name: {} for name in radii}, "distances", probe_every=0)


class MinimumNorm(Robustness):
    """minimum_norm: how small the smallest perturbation is that the attacks find, in L-inf, L2, L1 and L0, per example.

    The median of the smallest perturbation, norm by norm, over the examples that are classified right. L-inf, L2, L1:
    the sweep over many radii, and where the suite says `boundary`, from what the sweep has found on along the decision
    boundary. L0: sigma-zero, and `zero_norm_rounds` take back those of its changes that turn out needless; it counts
    changed values, so that a colour pixel has three. All are upper bounds.
    """

    parameters_type = MinimumNormParameters
