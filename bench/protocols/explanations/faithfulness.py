"""faithfulness: does a map say what the net does.

Infidelity and max-sensitivity (Yeh et al., NeurIPS 2019), local Lipschitz (Alvarez-Melis and Jaakkola 2018), ROAD (Rong
et al., ICML 2022), F-Fidelity (Zheng et al., ICLR 2025), sufficiency (Dasgupta et al., ICML 2022), insertion and
deletion (Petsiuk et al., BMVC 2018). Each has a section of the suite, and `false` in its place leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar, Literal
from weakref import WeakKeyDictionary

import pandas as pd
from pydantic import Field, model_validator
from torch import Tensor, nn

from bench.core.errors import BenchError
from bench.protocols.base import EvaluationContext
from bench.protocols.explanations import faithfulness_parts as parts
from bench.protocols.explanations.base import Batch, MapParameters, Unit
from bench.protocols.explanations.controlled import ControlledProtocol, Declared, finite
from bench.protocols.explanations.f_fidelity import FFidelity, f_fidelity, fine_tune
from bench.protocols.explanations.insertion import Background

_Off = Literal[False]


class Parameters(MapParameters):
    multiplied: list[str] = Field(default_factory=list)
    """The methods whose maps are contributions, multiplied by the input already, which infidelity must not do again."""
    background: Background = "mean"
    infidelity: parts.InfidelityParameters | _Off = False
    sensitivity: parts.SensitivityParameters | _Off = False
    road: parts.RoadParameters | _Off = False
    sufficiency: parts.SufficiencyParameters | _Off = False
    insertion: parts.InsertionParameters | _Off = False
    f_fidelity: FFidelity | _Off = False

    @model_validator(mode="after")
    def _fits_together(self) -> Parameters:
        unknown = set(self.multiplied) - {method.name for method in self.attributions}
        if unknown:
            raise ValueError(f"multiplied names {', '.join(sorted(unknown))}, which is none of the attributions")
        if not any(getattr(self, name) for name in _PARTS):
            raise ValueError(f"give one of {', '.join(_PARTS)}")
        return self


_PARTS = ("infidelity", "sensitivity", "road", "sufficiency", "insertion", "f_fidelity")


class Faithfulness(ControlledProtocol):
    """Metrics of faithfulness, for each method and four controls.

    Records hold one row per example and `attribution`, with a column per metric; ROAD's are means over shares.
    """

    parameters_type = Parameters
    parameters: Parameters
    declared: ClassVar[Declared] = {
        "infidelity": ("lower", "number", "headline"),
        "infidelity_raw": ("lower", "number", "detail"),
        "max_sensitivity": ("lower", "number", "usual"),
        "local_lipschitz": ("lower", "number", "detail"),
        "road": ("lower", "share", "headline"),
        "road_least": ("higher", "share", "usual"),
        "f_fidelity": ("higher", "number", "headline"),
        "f_fidelity_least": ("lower", "number", "detail"),
        "sufficiency": ("higher", "share", "usual"),
        "insertion": ("higher", "number", "usual"),
        "deletion": ("lower", "number", "usual"),
    }

    def __init__(self, parameters: Parameters) -> None:
        super().__init__(parameters)
        self._made: WeakKeyDictionary[nn.Module, dict[tuple[str, int], Any]] = WeakKeyDictionary()

    @property
    def needs_training_split(self) -> bool:  # type: ignore[override]
        return bool(self.parameters.f_fidelity)

    def require_net(self, model: nn.Module, images: Tensor) -> None:
        super().require_net(model, images)
        if self.parameters.f_fidelity and not any(True for _ in model.parameters()):
            raise BenchError(
                "f_fidelity fine-tunes the net, and this one has no weights to train; set `f_fidelity = false` in a "
                "copy of the suite."
            )

    def work(self, dataset: str, count: int) -> int:  # noqa: ARG002
        return count * (1 + sum(bool(getattr(self.parameters, name)) for name in _PARTS))

    def rows(self, unit: Unit, batch: Batch) -> Iterator[pd.DataFrame]:
        maps = dict(self.all_attributions(unit, batch))
        columns: dict[str, dict[str, Tensor]] = {name: {} for name in maps}
        unit.context.on_progress(len(batch.labels))
        for found in self._measured(unit, batch, maps):
            for name, of_subject in found.items():
                columns[name] |= of_subject
            unit.context.on_progress(len(batch.labels))
        for name, signed in maps.items():
            yield batch.frame({"attribution": name, **finite(columns[name], signed)})

    def _measured(self, unit: Unit, batch: Batch, maps: dict[str, Tensor]) -> Iterator[parts.Columns]:
        settings, background = self.parameters, self.parameters.background
        if settings.infidelity:
            yield parts.infidelities(unit, batch, maps, settings.infidelity, multiplied=settings.multiplied)
        if settings.sensitivity:
            yield parts.sensitivities(self, unit, batch, maps, settings=settings.sensitivity)
        if settings.road:
            yield parts.road(unit, batch, maps, settings.road)
        if settings.sufficiency:
            count = settings.sufficiency.references
            known = self._once(unit.context, "references", lambda: parts.references_of(self, unit, count))
            yield parts.sufficiencies(batch, maps, known, settings.sufficiency.nearest)
        if settings.insertion:
            yield parts.insertion(unit, batch, maps, settings.insertion, background=background)
        if settings.f_fidelity:
            tuned = self._once(unit.context, "tuned", partial(fine_tune, unit.context, settings.f_fidelity))
            yield f_fidelity(tuned, unit, batch, maps, settings=settings.f_fidelity)

    def _once(self, context: EvaluationContext, what: str, make: Callable[[], Any]) -> Any:
        """What is made of the judged net, once a process: units may be cut as small as one example."""
        made = self._made.setdefault(context.model, {})
        if (what, context.seed) not in made:
            made[what, context.seed] = make()
        return made[what, context.seed]
