"""What groups of models reach, image by image where the evidence lies beside the leaderboard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from bench.comparison.evidence import agreeing, run_values
from bench.core.errors import BenchError
from bench.leaderboard.evidence.manifest import read_evidence
from bench.leaderboard.labels import full_label
from bench.leaderboard.metrics import MetricKey, keys_of
from bench.leaderboard.statistics.intervals import NORMAL_QUANTILE
from bench.protocols.retraining.metrics import correct_matrix, trapezoid_weights
from bench.studies.names import Group, MetricName, expand

Array = npt.NDArray[np.float64]


class MissingInputError(BenchError):
    """Something that a claim needs is not there."""


@dataclass(frozen=True, slots=True)
class Effect:
    """An effect with its 95 % interval, what it was taken from, and the p-value of the claim's opposite."""

    value: float
    low: float
    high: float
    count: str
    reason: str
    p: float = 1.0
    seeds: int = 1
    """Of the side that has the fewest."""
    cap: str = ""
    """Why the claim is at best suggestive, for another reason than its seeds."""
    cap_against: str = ""
    """The same of its opposite."""


@dataclass(frozen=True, slots=True)
class Value:
    """A model's metric as the leaderboard has it."""

    value: float
    error: float
    """Standard error, from its interval."""
    count: int


class Values:
    """Metrics of models, from a study's own rows and the evidence of their runs."""

    def __init__(self, leaderboard: Path, rows: pd.DataFrame) -> None:
        self.leaderboard, self.rows = leaderboard, rows
        self.used: set[int] = set()
        """Labels of the rows that were asked for."""
        self._images: dict[tuple[MetricName, str], pd.DataFrame | None] = {}
        self._records: dict[str, pd.DataFrame] = {}

    def names(self, group: Group, *suites: str) -> tuple[str, ...]:
        """The models of a group; of a pattern, those run under the suites; raises MissingInputError if none."""
        known = set(self.rows["model"])
        tested = [set(self.rows.loc[self.rows["suite"] == suite, "model"]) for suite in suites]
        names = expand(group, known.intersection(*tested)) or expand(group, known)
        if not names:
            raise MissingInputError(f"no model is called {group if isinstance(group, str) else ' or '.join(group)}")
        return tuple(names)

    def value(self, of: MetricName, model: str) -> Value:
        """A model's metric, less the one it moved from where there is one; raises MissingInputError."""
        rows = self._rows(of, model)
        if rows.empty:
            raise MissingInputError(f"no {full_label(of.key)} of {model} under {of.suite}")
        row = rows.iloc[-1]
        self.used |= set(rows.index)
        if not np.isfinite(row["value"]):  # a median beyond the largest radius
            raise MissingInputError(f"{full_label(of.key)} of {model} under {of.suite} is no finite number")
        error = float(row["ci_high"] - row["ci_low"]) / (2 * NORMAL_QUANTILE)
        found = Value(float(row["value"]), error, int(row["n_examples"]))
        if of.minus is None:
            return found
        if isinstance(of.minus, float):
            return Value(found.value - of.minus, error, found.count)
        start = self.value(of.minus, model)  # of one model, so in the worst case the errors add up
        return Value(found.value - start.value, error + start.error, min(found.count, start.count))

    def images(self, of: MetricName, model: str) -> pd.DataFrame | None:
        """(images, nets retrained or 1) values by example id; None where the evidence is not there."""
        if (of, model) not in self._images:
            found = self._of_run(of, model)
            if found is not None and of.minus is not None:
                start = of.minus if isinstance(of.minus, float) else self.images(of.minus, model)
                found = None if start is None else found - start
            self._images[of, model] = found
        return self._images[of, model]

    def _rows(self, of: MetricName, model: str) -> pd.DataFrame:
        own = self.rows[(self.rows["suite"] == of.suite) & (self.rows["model"] == model)]
        return own[[key == of.key for key in keys_of(own)]].tail(1)

    def _of_run(self, of: MetricName, model: str) -> pd.DataFrame | None:
        rows = self._rows(of, model)
        if rows.empty:
            return None
        folder = self.leaderboard / "runs" / str(rows["run_id"].iloc[0])
        if not folder.is_dir():
            return None
        name = f"{full_label(of.key)} of {model} under {of.suite}"
        try:
            if of.key.metric in ("roar_score", "kar_score", "retrained_accuracy"):
                if folder.name not in self._records:
                    self._records[folder.name] = read_evidence(folder)[1]
                return _retrained(of.key, self._records[folder.name])
            found = run_values(folder, of.key).get(of.key)
        except BenchError as error:
            raise MissingInputError(f"{name}: {error}") from error
        if found is None:
            return None
        if not agreeing(found, float(rows["value"].iloc[0]), folder):
            raise MissingInputError(f"{name} is not what the records of its run say")
        return found.values.astype("float64").to_frame(0)


def _retrained(key: MetricKey, records: pd.DataFrame) -> pd.DataFrame | None:
    """Of each retrained net: which images it gets right, or what they add to the map's score."""
    name, _, share = key.subject.rpartition("/") if key.metric == "retrained_accuracy" else (key.subject, "", "")
    of_map, of_random = (records[records["map"] == one] for one in (name, "random"))
    if of_map.empty or of_random.empty:
        return None
    correct, removed = correct_matrix(of_map)
    if share:
        (place,) = np.flatnonzero(np.isclose(100 * removed, float(share)))
        return pd.DataFrame(correct[:, place].T)
    gaps = correct_matrix(of_random)[0] - correct
    sign = 1.0 if key.metric == "roar_score" else -1.0
    return pd.DataFrame(sign * np.einsum("spe,p->es", gaps, trapezoid_weights(removed)))


Term = tuple[float, MetricName, Group]
"""A group's mean of a metric, and the sign it is counted with."""


@dataclass(frozen=True, slots=True)
class Groups:
    """What several terms are of: each group of models once, with the sum of its terms.

    Attributes:
        arrays: (seeds, images) of each group; nets retrained for one model a side stand for seeds. None where the
            values of single images are not there.
        offsets: the numbers that each of the arrays is less.
    """

    arrays: list[Array] | None
    offsets: list[float]
    seeds: list[int]
    reason: str
    values: list[tuple[Array, float]]
    images: int

    @property
    def count(self) -> str:
        return f"{self.images} images{', not' if self.arrays is None else ''} in pairs, {seeds_text(self.seeds)}"


def seeds_text(seeds: Sequence[int]) -> str:
    """How many seeds each side has."""
    if len(set(seeds)) > 1:
        return f"{' against '.join(map(str, seeds))} seeds"
    return f"{seeds[0]} seed{'s' * (seeds[0] > 1)} a side"


def called(names: Sequence[str]) -> str:
    """A group in a sentence."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def groups_of(values: Values, terms: Sequence[Term]) -> Groups:
    """Collect the terms; raises MissingInputError."""
    by_group: dict[tuple[str, ...], list[tuple[float, MetricName]]] = {}
    reasons, before = [], ""
    for sign, of, group in terms:
        names = values.names(group, of.suite)
        by_group.setdefault(names, []).append((sign, of))
        label = _label(of)
        mean = np.mean([values.value(of, name).value for name in names])
        reasons.append(("" if label == before else f"{label} of ") + f"{called(names)} {mean:.4f}")
        before = label
    of_rows = [
        [[(sign, values.value(of, name)) for sign, of in signed] for name in names]
        for names, signed in by_group.items()
    ]
    numbers = []
    for models in of_rows:
        sums = np.array([sum(sign * one.value for sign, one in model) for model in models])
        # seeds share their images: of their mean the images' error is that of one
        numbers.append((sums, float(np.mean([sum(one.error for _, one in model) for model in models]))))
    arrays = _arrays(values, by_group)
    images = arrays[0].shape[1] if arrays else min(one.count for models in of_rows for row in models for _, one in row)
    offsets = [sum(sign * of.offset for sign, of in signed) for signed in by_group.values()]
    if arrays and len(arrays) < len(offsets):
        offsets = [sum(offsets)]
    seeds = [len(names) for names in by_group]
    return Groups(arrays, offsets, seeds, reason=", ".join(reasons), values=numbers, images=images)


def _label(of: MetricName) -> str:
    if of.minus is None:
        return full_label(of.key)
    return f"{full_label(of.key)} less {of.minus if isinstance(of.minus, float) else full_label(of.minus.key)}"


def _arrays(values: Values, by_group: dict[tuple[str, ...], list[tuple[float, MetricName]]]) -> list[Array] | None:
    tables: dict[tuple[int, str], pd.DataFrame] = {}
    for number, (names, signed) in enumerate(by_group.items()):
        for name in names:
            parts = [(sign, values.images(of, name)) for sign, of in signed]
            total = [sign * part for sign, part in parts if part is not None]
            if len(total) < len(parts):
                return None
            tables[number, name] = sum(total[1:], start=total[0])
    joined = pd.concat(tables, axis=1, join="inner").dropna().sort_index(axis=1)
    if joined.empty:
        return None
    by_model = {key: joined[key].to_numpy(np.float64).T for key in tables}
    if len(by_model) == len(by_group) and len({len(array) for array in by_model.values()}) == 1:
        sides = list(by_model.values())
        return [np.sum(sides, axis=0)] if len(sides[0]) > 1 else sides
    return [np.stack([by_model[number, name].mean(0) for name in names]) for number, names in enumerate(by_group)]
