"""Rows of robustness records from the results of attacks, and from rows what each example survives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from bench.attacks.verification import AttackResults
from bench.core.threat import NORMS, Norm
from bench.leaderboard.evidence.records import ROBUSTNESS_COLUMNS
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import ExampleValues, MetricKey
from bench.protocols.base import EvaluationContext, by_id


def example_columns(context: EvaluationContext, predictions: Tensor) -> dict[str, object]:
    """The columns that every row of an example has; `predictions` (n,) of the clean images."""
    return {
        "example_id": context.example_ids.numpy(),
        "label": context.labels().numpy(),
        "prediction": predictions.numpy(),
    }


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
        predictions: (n,) of the clean images.
        given: (n,) bool, which examples the attack was given; None for all.
    """
    shared, frames = example_columns(context, predictions) | {"attack": attack}, []
    for norm in radii:
        found = {
            "distance": results.distances[norm].numpy(),
            "adversarial_prediction": results.predictions[norm].numpy(),
            "found_in_norm": [NORMS[index] if index >= 0 else "" for index in results.found_in[norm].tolist()],
        }
        for eps in radii[norm]:
            broken = results.broken(norm, eps).numpy()
            frames.append(pd.DataFrame({**shared, "norm": norm, "eps": eps, "broken": broken, **found}))
    if given is not None:
        frames = [frame[given.numpy()] for frame in frames]
    return pd.concat(frames, ignore_index=True).astype(ROBUSTNESS_COLUMNS)


def robust_accuracies(records: pd.DataFrame, attack: str) -> list[ExampleValues]:
    """Whether each example survives at every norm and radius, norms in the order of NORMS, L0 the last."""
    found = []
    norms, radii = records["norm"].to_numpy(object), records["eps"].to_numpy()
    for norm in (*NORMS, "l0"):
        of_norm = norms == norm
        for eps in np.unique(radii[of_norm]).tolist():
            key = MetricKey("robust_accuracy", attack=attack, norm=norm, eps=eps)
            found.append(survival(key, records, of_norm & (radii == eps)))
    return found


def union_accuracy(records: pd.DataFrame, reference: Mapping[Norm, float], attack: str) -> list[ExampleValues]:
    """Whether each example survives every norm at its reference radius; nothing where a norm is missing."""
    norms, eps = records["norm"].to_numpy(object), records["eps"].to_numpy()
    in_each = [(norms == norm) & (eps == own) for norm, own in reference.items()]
    if not all(rows.any() for rows in in_each):
        return []
    at_reference = records[["example_id", "broken"]][np.logical_or.reduce(in_each)]
    return [survival(union_key(attack), at_reference.groupby("example_id")["broken"].any().reset_index())]


def union_key(attack: str) -> MetricKey:
    """The key of an attack's union over norms."""
    return MetricKey("union_accuracy", attack=attack, norm="all")


def accuracies_after(
    records: pd.DataFrame, verdicts: pd.DataFrame, attacks: Sequence[str], norm: Norm, eps: float
) -> list[ExampleValues]:
    """Whether each example stands after each attack of a chain: until one that it was given to has broken it.

    Args:
        records: rows of the attacks.
        verdicts: rows of the chain, for all examples.
    """
    found = []
    ids = verdicts.loc[(verdicts["norm"] == norm) & (verdicts["eps"] == eps), "example_id"]
    rows = records[(records["norm"] == norm) & (records["eps"] == eps)]
    standing = ids.isin(rows["example_id"]).set_axis(ids)
    for name in attacks:
        broken = rows.loc[(rows["attack"] == name) & rows["broken"], "example_id"]
        standing = standing & ~standing.index.isin(broken)
        key = MetricKey("robust_accuracy_after", attack=name, norm=norm, eps=eps)
        found.append(ExampleValues(key, standing, "descriptive", "share"))
    return found


def survival(key: MetricKey, records: pd.DataFrame, rows: NDArray[np.bool_] | slice = slice(None)) -> ExampleValues:
    """A share of examples that stand, from those rows of records that say of each whether it is broken."""
    # columns apart, since to take rows of a whole table costs most of the time
    ids, broken = records["example_id"].to_numpy()[rows], records["broken"].to_numpy(bool)[rows]
    return ExampleValues(key, by_id(ids, ~broken), "higher", "share")


def bad_gradients(bad: int, total: int) -> Finding:
    """The finding that some gradients were not numbers."""
    evidence = f"{bad} of {total} image gradients were NaN or infinite"
    advice = "gradient attacks are blind there and the robust accuracy may be too high; mend the net's backward pass"
    return Finding("bad_gradients", "warning", evidence, advice)
