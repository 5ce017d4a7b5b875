"""What a suite asks of the robustness protocol: attacks with their keywords, how they follow each other, radii."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from bench.attacks.registry import Attack, NamedAttack, named_attack
from bench.attacks.user_files import UserFile, named_function
from bench.catalog.cards import NAME, WORDS
from bench.core.bounds import OneRadius, SeveralRadii
from bench.core.errors import BenchError
from bench.core.threat import NORMS, Norm
from bench.core.toml_files import Section

Mode = Literal["each", "chained", "across_norms", "distances"]
WORST = "worst"
"""What the verdict over several attacks is called."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An attack of a suite.

    Attributes:
        attack: its name; see bench.attacks.registry.find_attack.
        name: what its rows are called.
        norms: those it is used in; None for all that it works in.
    """

    attack: str
    name: str
    keywords: Mapping[str, Any] = field(default_factory=dict)
    norms: tuple[str, ...] | None = None

    @property
    def is_file(self) -> bool:
        return named_function(self.attack) is not None

    def prepared(self, file: UserFile | None) -> NamedAttack:
        """The attack with its keywords, checked; raises BenchError."""
        return named_attack(self.attack, self.keywords, self.name, file)

    def norms_of(self, attack: Attack, offered: Sequence[str]) -> list[str]:
        """Those of the norms `offered` in which the attack is used; raises BenchError where there is none."""
        if self.norms is None and not attack.norms and len(offered) > 1:
            raise BenchError(f'attack {self.name} does not say its norm; give the suite\'s, norms = ["{offered[0]}"].')
        known = attack.norms or NORMS
        strange = [norm for norm in self.norms or () if norm not in known]
        if strange:
            raise BenchError(f"attack {self.name} works in {', '.join(known)}, not in {strange[0]}.")
        used = [norm for norm in offered if norm in (self.norms or known)]
        if not used:
            wanted = ", ".join(self.norms or known)
            raise BenchError(f"attack {self.name} works in {wanted}, for which this suite has no radii.")
        return used

    def require_stages(self, norms: Sequence[str]) -> None:
        """Raise BenchError where it is the cascade and has no stage in one of the norms."""
        stages = self.prepared(None).keywords.get("stages") if self.attack == "cascade" else None
        for norm in norms:
            if stages and not any(norm in stage.norms for stage in stages):
                raise untouched(norm, f"no stage of {self.name}")


@dataclass(frozen=True, slots=True)
class Plan:
    """A suite of the robustness protocol.

    Attributes:
        radii: data set -> norm -> radii.
        reference: data set -> norm -> the radius at which the union over norms is taken.
        mode: `each` attack on all images; `chained`, each on what those before it left standing; `across_norms`, each
            norm on what the norms before it left standing, for the union alone; or `distances`, how small the smallest
            perturbation is that each attack finds.
        verdict: what the rows over all attacks of a chain are called.
        probe_every: one image in so many is probed for gradient masking; 0 for none. One in eight is about a tenth of
            the sweep's time.
        pixels: data set -> numbers of changed pixels, the radii in L0 of mode `each`.
        norms_apart: in mode `each`, an attack over all radii begins at the largest of each norm. Else it begins where
            no other norm's image lies, without the points that would lead it there from outside; in L1, of nets trained
            in L-inf, that left 22 points too many standing (`trades`, radius 5, 200 images).
    """

    entries: tuple[Entry, ...]
    radii: Mapping[str, Mapping[Norm, Sequence[float]]]
    reference: Mapping[str, Mapping[Norm, float]]
    mode: Mode = "each"
    verdict: str = WORST
    probe_every: int = 8
    pixels: Mapping[str, Sequence[int]] = field(default_factory=dict)
    norms_apart: bool = False

    def radii_of(self, dataset: str) -> dict[Norm, list[float]]:
        """Norms in their order, with their radii in the suite's."""
        radii = self.radii[dataset]
        return {norm: list(radii[norm]) for norm in NORMS if norm in radii}

    def reference_of(self, dataset: str) -> dict[Norm, float]:
        reference = self.reference[dataset]
        return {norm: reference[norm] for norm in NORMS if norm in reference}


def untouched(norm: str, what: str) -> BenchError:
    return BenchError(f"{what} works in {norm}, for which there are radii; add one, or leave {norm} out of the radii.")


class ReferenceRadii(Section):
    """One radius for each norm of one data set, in pixels of [0, 1]."""

    reference: OneRadius = Field(min_length=1)

    @property
    def all_radii(self) -> Mapping[Norm, list[float]]:
        return {norm: [eps] for norm, eps in self.reference.items()}


class Radii(ReferenceRadii):
    """The radii of one data set, in pixels of [0, 1], and the one of each norm that the union is taken at."""

    radii: SeveralRadii = Field(default_factory=dict)

    @model_validator(mode="after")
    def _reference_is_among_radii(self) -> Radii:
        for norm, radii in self.radii.items():
            if len(set(radii)) != len(radii):
                raise ValueError(f"a radius of {norm} is given twice")
            if self.reference.get(norm) not in radii:
                raise ValueError(f"reference must name one of the radii of {norm}")
        if self.radii and set(self.reference) != set(self.radii):
            raise ValueError("reference names a norm that has no radii")
        return self

    @property
    def all_radii(self) -> Mapping[Norm, list[float]]:
        return self.radii or super().all_radii


def plan_of(entries: Sequence[Entry], datasets: Mapping[str, ReferenceRadii], mode: Mode, **further: Any) -> Plan:
    """A plan at the radii of each data set; `further` are other fields of `Plan`."""
    radii = {name: section.all_radii for name, section in datasets.items()}
    reference = {name: section.reference for name, section in datasets.items()}
    return Plan(tuple(entries), radii, reference, mode, **further)


def require_unique_names(entries: Sequence[Entry]) -> None:
    """Raise ValueError, for a validator, where rows of two attacks could not be told apart."""
    names = [entry.name for entry in entries]
    if len(set(names)) != len(names) or WORST in names:
        raise ValueError(f"attacks need names that differ, and none may be called {WORST!r}")


class AttackSection(Section):
    """An attack by name; further keys are its keywords."""

    model_config = ConfigDict(extra="allow")

    attack: str = WORDS
    name: Annotated[str, NAME] | None = None
    norms: tuple[Norm | Literal["l0"], ...] | None = Field(default=None, min_length=1, strict=False)

    def entry(self) -> Entry:
        name = self.name or self.attack.rpartition("/")[2]
        return Entry(self.attack, name, self.model_extra or {}, self.norms)


class Parameters(Section):
    """The parameters of protocol `robustness`."""

    attacks: list[AttackSection] = Field(min_length=1, max_length=100)
    chained: bool = False
    distances: bool = False
    datasets: dict[str, Radii] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_one_thing(self) -> Parameters:
        require_unique_names([section.entry() for section in self.attacks])
        if self.chained and self.distances:
            raise ValueError("chained attacks stop where an image is broken; distances need each on all images")
        return self

    def plan(self) -> Plan:
        """What they ask for."""
        mode: Mode = "chained" if self.chained else "distances" if self.distances else "each"
        return plan_of([section.entry() for section in self.attacks], self.datasets, mode)
