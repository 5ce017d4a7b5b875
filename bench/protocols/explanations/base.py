"""What the attribution protocols share: checked parameters, the clean pass, and metrics as means over examples."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from pydantic import Field, PlainValidator, model_validator
from torch import Tensor, nn

from bench.attacks.pgd import attacked_model
from bench.attacks.user_files import UserFile, named_function
from bench.attributions.activations import has_relu
from bench.attributions.heat_maps import heat_maps
from bench.attributions.manipulate import Manipulated
from bench.attributions.registry import AttributionMethod, MapRequest, attribute, find_method, method_of_file
from bench.attributions.similarity import DISTANCES, SSIM_WINDOW, Measure, PreparedMaps
from bench.core.errors import BenchError
from bench.core.toml_files import Section
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import Direction, ExampleValues, MetricKey, Prominence
from bench.protocols.base import Dependency, EvaluationContext, Protocol, UnitResult

_TURNED: dict[Direction, Direction] = {"higher": "lower", "lower": "higher", "descriptive": "descriptive"}
_BITS = 10
_SIMILARITIES = ("cosine", "pearson", "spearman", "ssim")
_ROUNDED = (*_SIMILARITIES, "centre_shift", "area")
_WHOLE = ("gradient_", "hessian_")
"""Endings and beginnings of records' columns. Shares are counts, and parts of a bound must keep it."""
TopShare = Annotated[float, Field(gt=0, le=1)]


def _method(value: Any) -> AttributionMethod:
    """The method of a suite's line, e.g. `{ name = "smoothgrad", samples = 16 }`; that of a file is not loaded yet."""
    if isinstance(value, AttributionMethod):
        return value
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ValueError(  # noqa: TRY004  (pydantic takes no TypeError)
            "give the name of an attribution method, and its parameters beside it"
        )
    name, parameters = value["name"], {key: given for key, given in value.items() if key != "name"}
    if named_function(name) is not None:
        return method_of_file(name, parameters)
    try:
        return find_method(name).given(**parameters)
    except BenchError as error:
        raise ValueError(str(error).removesuffix(".")) from error


Attributions = Annotated[list[Annotated[AttributionMethod, PlainValidator(_method)]], Field(min_length=1)]


class MapParameters(Section):
    """What every suite of explanations says; its lists name nothing twice."""

    attributions: Attributions

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for what in ("attributions", "attacks", "radii", "measures"):
            listed = getattr(self, what, ())
            if len({getattr(one, "kind", getattr(one, "name", one)) for one in listed}) != len(listed):
                raise ValueError(f"{what} need names that differ")
        return self


class ComparedMaps(MapParameters):
    """And what one says that measures how alike maps are."""

    measures: list[Measure] = Field(min_length=1)
    top_share: TopShare = 0.1


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples of a work unit that go through the model together, on its device."""

    images: Tensor
    labels: Tensor
    example_ids: Tensor
    predictions: Tensor

    def request(self, seed: int = 0) -> MapRequest:
        """Maps of the images' labels."""
        return MapRequest(self.images, self.labels, self.example_ids, seed)

    def attributions(
        self, model: nn.Module, method: AttributionMethod, seed: int, images: Tensor | None = None
    ) -> Tensor:
        """Signed attributions of the images' labels, or those of perturbed copies."""
        images = self.images if images is None else images
        ids, count = self.example_ids, len(images)
        return attribute(model, images, self.labels, method, example_ids=ids, seed=seed, batch_size=count)

    def frame(self, columns: Mapping[str, Any]) -> pd.DataFrame:
        """Records of the batch: the first columns, then `columns`; float32 tensors stay float32."""
        base = {"example_id": self.example_ids, "label": self.labels, "prediction": self.predictions}
        values = {name: value.cpu().numpy().astype("int32") for name, value in base.items()}
        values |= {name: value.cpu().numpy() if isinstance(value, Tensor) else value for name, value in columns.items()}
        return pd.DataFrame(values)


class AttributionProtocol(Protocol):
    """Explains the true class's logit; images of any size and number of channels, any data set."""

    needs_gradients = True
    manipulates = False
    """Whether it attacks maps, on the net with smooth activations."""
    counted: ClassVar[tuple[str, ...]] = ()
    """What the manifest says of the work: names of a unit's counters."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters)
        files = (named_function(method.name) for method in parameters.attributions)
        self.program_files = frozenset(found[0] for found in files if found is not None)

    def use_program(self, program: UserFile | None) -> None:
        if not self.program_files:
            return
        methods = [
            find_method(one.name, program).given(**one.parameters) if named_function(one.name) else one
            for one in self.parameters.attributions
        ]
        self.program, self.parameters = program, self.parameters.model_copy(update={"attributions": methods})

    def dependencies(self, dataset: str, model_name: str, registry: Path | None) -> dict[str, Dependency]:  # noqa: ARG002
        return {} if self.program is None else {"attribution_program": Dependency(self.program.sha256)}

    def require_images(self, shape: tuple[int, ...], name: str) -> None:
        height, width = shape[-2:]
        if "ssim" in getattr(self.parameters, "measures", ()) and min(height, width) < SSIM_WINDOW:
            raise BenchError(
                f"ssim needs images of at least {SSIM_WINDOW}x{SSIM_WINDOW} pixels, those of {name} have "
                f"{height}x{width}; leave it out in a copy of the suite."
            )
        if min(height, width) < 2:
            raise BenchError(f"heat maps need images of at least 2x2 pixels, those of {name} have {height}x{width}.")

    def require_net(self, model: nn.Module, images: Tensor) -> None:
        """Raise BenchError if the net hides what a method of the suite has to see, or computes what has no rule."""
        labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        for method in self.parameters.attributions:
            attribute(model, images, labels, method)
        if self.manipulates:
            with attacked_model(model):
                has_relu(model, images)

    def evaluate(self, context: EvaluationContext) -> UnitResult:
        images, labels = context.images(), context.labels().to(context.device)
        with attacked_model(context.model):
            predictions, findings = context.clean_pass()
        whole = images, labels, context.example_ids.to(context.device), predictions.to(context.device)
        batches = [Batch(*cut) for cut in zip(*(torch.split(one, context.batch_size) for one in whole), strict=True)]
        unit = Unit(context, getattr(self.parameters, "top_share", 1.0), dict.fromkeys(self.counted, 0))
        with attacked_model(context.model):
            records = pd.concat([rows for batch in batches for rows in self.rows(unit, batch)], ignore_index=True)
            for method in self.parameters.attributions:
                findings += method.findings(context.model, batches[0].images[:1])
        records = stored(records)
        findings += [*unit.findings(), *self.remarks(unit, records)]
        return UnitResult(records.sort_values("example_id", kind="stable", ignore_index=True), unit.counters, findings)

    @abstractmethod
    def rows(self, unit: Unit, batch: Batch) -> Iterator[pd.DataFrame]:
        """The records of a batch, in any number of parts; progress is reported on the way."""

    def remarks(self, unit: Unit, records: pd.DataFrame) -> list[Finding]:  # noqa: ARG002
        """What else the records of a unit tell, which may be corrected here."""
        return []

    def compared(
        self, measure: Measure, key: MetricKey, values: pd.Series, direction: Direction, *, headline: bool = False
    ) -> ExampleValues:
        """A metric of a measure, of which a suite's first stands for the others.

        Args:
            direction: which way it is better of similarities: distances turn it round.
        """
        if measure in DISTANCES:
            direction = _TURNED[direction]
        shown: Prominence = "headline" if headline else "usual"
        prominence: Prominence = shown if measure == self.parameters.measures[0] else "detail"
        return ExampleValues(key, values, direction, "number", prominence=prominence)


_FLAT = {
    "empty": (
        "are all zero", "their similarity is counted as 0; look at the net's activations before reading these numbers"
    ),
    "constant": ("have one value everywhere", "they tell no pixel from another, so being alike says nothing; mend it"),
}  # fmt: skip
"""Maps that show nothing: what is said of them, and what to do."""


class Unit:
    """A work unit as it goes: which maps, by method, show nothing or are no numbers, and what the work counted."""

    def __init__(self, context: EvaluationContext, top_share: float, counters: dict[str, int]) -> None:
        self.context, self.top_share, self.counters = context, top_share, counters
        self.flat: dict[str, int] = {}
        """Attack -> how often it saw no gradient other than zero."""
        self._flat = Counter[tuple[str, str]]()
        self._broken: dict[str, set[int]] = {}

    def maps(
        self, method: AttributionMethod, batch: Batch, images: Tensor | None = None, model: nn.Module | None = None
    ) -> PreparedMaps:
        """Heat maps of the batch, or of `images`, its perturbed copies, or of another net than the judged one."""
        own, net = images is None and model is None, self.context.model if model is None else model
        found = batch.attributions(net, method, self.context.seed, images)
        return self.see(method, batch, self.prepared(found), clean=own)

    def prepared(self, attributions: Tensor) -> PreparedMaps:
        """Signed attributions as heat maps to compare."""
        return PreparedMaps(heat_maps(attributions), self.top_share)

    def see(self, method: AttributionMethod, batch: Batch, maps: PreparedMaps, *, clean: bool = False) -> PreparedMaps:
        """Look at the maps of a batch, of its images or (unless `clean`) of perturbed ones, and hand them back."""
        if clean:
            flat = maps.maps.flatten(1)
            constant = (flat.amax(1) == flat.amin(1)) & ~maps.empty
            self._flat["empty", method.name] += int(maps.empty.sum())
            self._flat["constant", method.name] += int(constant.sum())
        self._broken.setdefault(method.name, set()).update(batch.example_ids[~maps.finite].tolist())
        return maps

    def count(self, found: Manipulated, attack: str) -> None:
        """Add what an attack on maps cost, of what is counted at all."""
        self.flat[attack] = self.flat.get(attack, 0) + found.flat_gradients
        for name in self.counters:
            self.counters[name] += getattr(found, name)

    def findings(self) -> list[Finding]:
        """Warnings where maps have one value everywhere, or where a map is not finite."""
        count = self.context.stop - self.context.start
        found = [
            Finding(
                f"{kind}_maps_{name}", "warning", f"{number} of {count} {name} maps {_FLAT[kind][0]}", _FLAT[kind][1]
            )
            for (kind, name), number in self._flat.items()
            if number
        ]
        broken = [f"{len(ids)} of {count} images under {name}" for name, ids in self._broken.items() if ids]
        if broken:
            evidence = f"maps hold NaN or infinite values: {', '.join(broken)}"
            advice = (
                "these images are left out of the method's means; mend the net's backward pass (roots, logarithms "
                "and divisions at 0)"
            )
            found.append(Finding("non_finite_maps", "warning", evidence, advice))
        return found


def stored(records: pd.DataFrame) -> pd.DataFrame:
    """Records as the evidence has them: ten significant bits of a similarity's distance from 1, or of another number.

    That is within a tenth of a per cent of an image's number, and moves a mean by less than 0.0002 (docs/metrics.md);
    more bits would fill the disk and say nothing.
    """
    names = [name for name in map(str, records) if name.endswith(_ROUNDED) and not name.startswith(_WHOLE)]
    origins = {name: 1.0 if name.endswith(_SIMILARITIES) else 0.0 for name in names}
    return records.assign(**{name: _rounded(records[name].to_numpy(), origins[name]) for name in names})


def _rounded(values: np.ndarray, origin: float) -> np.ndarray:
    mantissas, exponents = np.frexp(origin - values.astype(np.float64))
    scale = 2.0**_BITS
    return (origin - np.ldexp(np.round(mantissas * scale) / scale, exponents)).astype(np.float32)


def by_example(rows: pd.DataFrame, column: str, keep: pd.Series | None = None) -> pd.Series:
    """A column indexed by example id, NaN where it is infinite or `keep` is false."""
    # numpy's way: pandas' own takes three times as long, and a run has hundreds of metrics
    values = rows[column].to_numpy("float64", copy=True, na_value=np.nan)
    values[np.isinf(values) if keep is None else np.isinf(values) | ~keep.to_numpy(bool)] = np.nan
    return pd.Series(values, index=pd.Index(rows["example_id"]), name=column, copy=False)


def groups(records: pd.DataFrame, columns: Sequence[str]) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """Groups of records in the order in which they first come; where there is no number, it is NaN."""
    yield from records.groupby(list(columns), sort=False, observed=True, dropna=False)
