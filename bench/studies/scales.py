"""A study's scales: what is trained and run at each, and how long that takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field, model_validator

from bench.catalog.cards import NAME
from bench.core.bounds import Count
from bench.core.toml_files import Section
from bench.studies.names import expand

AUTOENCODER = "vae_gan"
"""The recipe of a net that is no classifier; its id has no prefix, as suites name it."""


class TrainedModel(Section):
    """A model that the study trains, if asked to, where the registry has none of that id.

    With `seeds` it stands for seeds 0, 1, ... of it: `id`, `id_seed1`, ...
    """

    id: str = NAME
    recipe: str
    seed: int = Field(default=0, ge=0)
    seeds: int = Field(default=1, ge=1, le=100)
    parameters: dict[str, Any] = Field(default_factory=dict)
    varied: dict[str, list[Any]] = Field(default_factory=dict, max_length=1)
    """A parameter and its values, a model each: `id_01`, `id_02`, ..."""
    minutes: float | None = Field(default=None, gt=0)
    """Of one seed, on one core of the reference machine; by default what the scale says of the recipe."""

    @model_validator(mode="after")
    def _has_one_seed_or_several(self) -> TrainedModel:
        if self.seed and self.seeds > 1:
            raise ValueError(f"{self.id}: seed names one, seeds asks for several")
        return self

    @property
    def method(self) -> str:
        """What its training seeds have in common."""
        return self.id.removesuffix(f"_seed{self.seed}")


class Scale(Section):
    """How much of the study is done.

    A scale that `extends` another has all that the other has, key by key, where it says nothing itself; its trainings
    are added to the other's, in place of one of the same id.
    """

    extends: str | None = None
    note: str = ""
    """Said with the plan: what its times are of, say."""
    prefix: str = Field(default="", pattern=r"^[A-Za-z0-9._-]*$")
    """What the ids of this scale's models begin with; here and in claims and pictures it is left out."""
    suites: dict[str, str]
    """What the claims call a suite -> the suite at this scale."""
    models: list[str] = Field(min_length=1)
    """Ids, or patterns."""
    examples: dict[str, Count] = Field(default_factory=dict)
    seconds: dict[str, float]
    """The claims' name of a suite -> seconds for one model on two idle cores of the reference machine."""
    train: list[TrainedModel] = Field(default_factory=list)
    seeds: int | None = Field(default=None, ge=1, le=100)
    """Of each trained model, in place of its own."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Of every training; those of its recipe, and its own, come before them."""
    recipes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Parameters by recipe."""
    minutes: dict[str, float] = Field(default_factory=dict)
    """Recipe -> minutes of a training on one core of the reference machine, the other one at work too."""
    only: dict[str, list[str]] = Field(default_factory=dict)
    """The claims' name of a suite -> models, ids or patterns, where not all are run under it."""
    lent: dict[str, list[str]] = Field(default_factory=dict)
    """The same -> models of which finished runs on the leaderboard count too, though the study makes none."""

    def under(self, role: str, models: Sequence[str]) -> list[str]:
        """Those of the models that are run under a suite."""
        wanted = set(expand(self.only.get(role, ["*"]), models))
        return [name for name in models if name in wanted]

    def lent_to(self, role: str, here: Sequence[str], absent: Sequence[str]) -> list[str]:
        """Models whose finished runs count though none is made: of `absent` there are no weights."""
        extra = set(expand(self.lent.get(role, []), here)).difference(self.under(role, here))
        return [*self.under(role, absent), *(name for name in here if name in extra)]

    def resolved(self) -> Scale:
        """The same with whole ids and one entry a training, all of a seed's before the next seed's."""
        lines = [one for line in self.train for one in _each(line)]
        ids = {line.id for line in lines}
        counts = [(line, 1 if line.recipe == AUTOENCODER else self.seeds or line.seeds) for line in lines]
        rounds = range(max((count for _, count in counts), default=0))
        train = [self._one(line, seed, ids) for seed in rounds for line, count in counts if seed < count]
        models = [self.prefix + name for name in self.models]
        only, lent = (
            {role: [self.prefix + name for name in names] for role, names in table.items()}
            for table in (self.only, self.lent)
        )
        return self.model_copy(update={"train": train, "models": models, "only": only, "lent": lent})

    def _one(self, line: TrainedModel, seed: int, ids: set[str]) -> TrainedModel:
        if line.recipe == AUTOENCODER:
            return line.model_copy(update={"minutes": self._minutes(line)})
        parameters = self.parameters | self.recipes.get(line.recipe, {}) | line.parameters
        if (source := parameters.get("source_model")) in ids:
            parameters["source_model"] = self.prefix + source
        own = {
            "id": self.prefix + line.id + (f"_seed{seed}" if seed else ""), "seed": line.seed + seed, "seeds": 1,
            "parameters": parameters, "minutes": self._minutes(line),
        }  # fmt: skip
        return line.model_copy(update=own)

    def _minutes(self, line: TrainedModel) -> float | None:
        return self.minutes.get(line.recipe) if line.minutes is None else line.minutes

    @model_validator(mode="after")
    def _fits_itself(self) -> Scale:
        missing = [name for name in self.suites if name not in self.seconds]
        if missing:
            raise ValueError(f"seconds lacks {', '.join(missing)}")
        again = [name for name, suite in self.suites.items() if list(self.suites.values()).count(suite) > 1]
        if again:
            raise ValueError(f"suites has one suite under several names: {', '.join(again)}")
        for key, table in (("only", self.only), ("lent", self.lent)):
            unknown = [name for name in table if name not in self.suites]
            if unknown:
                raise ValueError(f"{key} names no suite of the scale: {', '.join(unknown)}")
        timeless = [line.id for line in self.train if self._minutes(line) is None]
        if timeless:
            raise ValueError(f"minutes lacks the recipe of {', '.join(timeless)}")
        return self


def extended(scales: Any) -> Any:
    """Parsed scales, each that extends another completed by it; raises ValueError. Other values stay as they are."""
    if not isinstance(scales, dict):
        return scales
    whole: dict[Any, Any] = {}
    for name, own in scales.items():
        parent = own.get("extends") if isinstance(own, dict) else None
        if parent is not None and not (isinstance(parent, str) and isinstance(whole.get(parent), dict)):
            raise ValueError(f"{name} extends {parent!r}, which is no scale above it")
        whole[name] = own if parent is None else {**whole[parent], **own, "train": _added(whole[parent], own)}
    return whole


def _added(parent: dict[str, Any], own: dict[str, Any]) -> Any:
    """The parent's trainings and the scale's own ones."""
    before, after = parent.get("train", []), own.get("train", [])
    if not all(isinstance(lines, list) and all(isinstance(line, dict) for line in lines) for lines in (before, after)):
        return after
    replaced = [line.get("id") for line in after]
    return [*(line for line in before if line.get("id") not in replaced), *after]


def _each(line: TrainedModel) -> list[TrainedModel]:
    """A model for each value of the varied parameter."""
    if not line.varied:
        return [line]
    ((name, values),) = line.varied.items()
    made = []
    for number, value in enumerate(values, start=1):
        own = {"id": f"{line.id}_{number:02d}", "parameters": line.parameters | {name: value}, "varied": {}}
        made.append(line.model_copy(update=own))
    return made
