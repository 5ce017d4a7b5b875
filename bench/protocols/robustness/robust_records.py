"""What the robustness protocols share: the radii of a suite, rows from attack results, accuracies from rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import Field, model_validator
from torch import Tensor

from bench.attacks.verification import AttackResults
from bench.core.bounds import OneRadius, SeveralRadii
from bench.core.threat import NORMS, Norm
from bench.core.toml_files import Section
from bench.leaderboard.evidence.records import ROBUSTNESS_COLUMNS
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import ExampleValues, MetricKey
from bench.protocols.base import EvaluationContext

if TYPE_CHECKING:
    import pandas as pd


class Radii(Section):
    """The radii of one data set, in pixels of [0, 1], and the one of each norm that the union is taken at."""

    radii: SeveralRadii = Field(min_length=1)
    reference: OneRadius

    @model_validator(mode="after")
    def _reference_is_among_radii(self) -> Radii:
        for norm, radii in self.radii.items():
            if len(set(radii)) != len(radii):
                raise ValueError(f"a radius of {norm} is given twice")
            if self.reference.get(norm) not in radii:
                raise ValueError(f"reference must name one of the radii of {norm}")
        if set(self.reference) != set(self.radii):
            raise ValueError("reference names a norm that has no radii")
        return self


class ReferenceRadii(Section):
    """One radius for each norm of one data set, in pixels of [0, 1]."""

    reference: OneRadius = Field(min_length=1)


def robust_rows(
    context: EvaluationContext,
    attack: str,
    radii: Mapping[Norm, Sequence[float]],
    predictions: Tensor,
    results: AttackResults,
    given: Tensor | None = None,
) -> pd.DataFrame:
    """One row for each example, norm and radius, with the columns of ROBUSTNESS_COLUMNS.

    Args:
        attack: what the rows are called.
        radii: norm -> radii.
        predictions: (n,) of the clean images.
        given: (n,) bool, which examples the attack was given; None for all.
    """
    import pandas as pd

    frames = [
        pd.DataFrame(
            {
                "example_id": context.example_ids.numpy(),
                "label": context.labels().numpy(),
                "prediction": predictions.numpy(),
                "attack": attack,
                "norm": norm,
                "eps": eps,
                "broken": results.broken(norm, eps).numpy(),
                "distance": results.distances[norm].numpy(),
                "adversarial_prediction": results.predictions[norm].numpy(),
                "found_in_norm": [NORMS[index] if index >= 0 else "" for index in results.found_in[norm].tolist()],
            }
        )
        for norm in radii
        for eps in radii[norm]
    ]
    if given is not None:
        frames = [frame[given.numpy()] for frame in frames]
    return pd.concat(frames, ignore_index=True).astype(ROBUSTNESS_COLUMNS)


def robust_accuracies(records: pd.DataFrame, attack: str) -> list[ExampleValues]:
    """Whether each example survives at every norm and radius, norms in the order of NORMS."""
    found = []
    for norm in NORMS:
        of_norm = records[records["norm"] == norm]
        for eps in sorted(set(of_norm["eps"].tolist())):
            rows = of_norm[of_norm["eps"] == eps].set_index("example_id")
            found.append(survival(MetricKey("robust_accuracy", attack=attack, norm=norm, eps=eps), rows["broken"]))
    return found


def union_accuracy(records: pd.DataFrame, reference: Mapping[Norm, float], attack: str) -> list[ExampleValues]:
    """Whether each example survives every norm at its reference radius; nothing where a norm is missing."""
    at_reference = records[records["eps"] == records["norm"].astype(str).map(reference)]
    if at_reference["norm"].nunique() != len(reference):
        return []
    broken = at_reference.groupby("example_id")["broken"].any()
    return [survival(MetricKey("union_accuracy", attack=attack, norm="all"), broken)]


def survival(key: MetricKey, broken: pd.Series[bool]) -> ExampleValues:
    """A share of examples that stand, from whether each, by its id, is broken."""
    return ExampleValues(key, ~broken.astype(bool), "higher", "share")


def bad_gradients(bad: int, total: int) -> Finding:
    """The finding that some gradients were not numbers."""
    return Finding(
        "bad_gradients",
        "warning",
        f"{bad} of {total} image gradients were NaN or infinite",
        "gradient attacks are blind there and the robust accuracy may be too high; mend the net's backward pass",
    )
