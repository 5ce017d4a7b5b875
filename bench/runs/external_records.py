"""Records in which others' adversarial images have been entered: what stands under a run's attacks and under them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bench.attacks.verification import RELATIVE_TOLERANCE, AttackResults
from bench.core.threat import NORMS, Norm

_WORDS = ("attack", "norm", "found_in_norm")


def with_external_rows(
    records: pd.DataFrame, results: AttackResults, fewest: Tensor, attack: str, *,
    radii: Mapping[Norm, Sequence[float]],
) -> pd.DataFrame:  # fmt: skip
    """The records of a run, and rows of `attack`: one for each example, norm and radius, of the best of all attacks.

    Args:
        results: of others' images, in the order of the examples' ids.
        fewest: (N,) float64, how few values (pixels, as the suite counts) they change; infinite where none fools.
        radii: of the suite.
    """
    words = [name for name in _WORDS if name in records]
    records = records.astype(dict.fromkeys(words, "str"))
    keys = ["example_id", *(name for name in ("norm", "eps") if name in records)]
    standing = ~records["broken"] if "broken" in records else True
    order = records.assign(_standing=standing).sort_values([*keys, "_standing", "distance"], kind="stable")
    best = order.drop_duplicates(keys).drop(columns="_standing").assign(attack=attack)
    parts = [
        _lowered(rows.sort_values("example_id"), str(norm), results, fewest, radii=radii)
        for (norm, _), rows in best.groupby(["norm", best["eps"] if "eps" in best else best["norm"]], dropna=False)
    ]
    best = pd.concat(parts).astype({name: kind for name, kind in records.dtypes.items() if name not in words})
    made = pd.concat([records[records["attack"] != attack], best], ignore_index=True)
    return made.astype(dict.fromkeys(words, "category"))


def _lowered(
    rows: pd.DataFrame, norm: str, results: AttackResults, fewest: Tensor, *, radii: Mapping[Norm, Sequence[float]]
) -> pd.DataFrame:
    """Rows of one norm and radius, of all examples by their ids, with what others' images do better."""
    if norm == "all":
        return _lowered_over_norms(rows, results, radii)
    if norm == "l0":
        inside = {"broken": rows["broken"] | (fewest.numpy() <= rows["eps"])} if "broken" in rows else {}
        return rows.assign(distance=np.minimum(rows["distance"], fewest.numpy()), **inside)
    named = next(one for one in NORMS if one == norm)
    distances = results.distances[named].numpy()
    better = distances < rows["distance"].to_numpy()
    changed: dict[str, Any] = {"distance": np.where(better, distances, rows["distance"])}
    if "broken" in rows:
        found_in = np.array([*NORMS, ""])[results.found_in[named].numpy()]
        said = results.predictions[named].numpy()
        changed |= {
            "broken": rows["broken"] | (distances <= rows["eps"] * (1.0 + RELATIVE_TOLERANCE)),
            "adversarial_prediction": np.where(better, said, rows["adversarial_prediction"]),
            "found_in_norm": np.where(better, found_in, rows["found_in_norm"]),
        }
    return rows.assign(**changed)


def _lowered_over_norms(
    rows: pd.DataFrame, results: AttackResults, radii: Mapping[Norm, Sequence[float]]
) -> pd.DataFrame:
    """The same of rows over all norms: broken where any norm's ball holds an image, the first such norm named."""
    inside = torch.stack([results.broken(norm, max(own)) for norm, own in radii.items()])
    new = inside.any(0).numpy() & ~rows["broken"].to_numpy()
    first = inside.int().argmax(0).numpy()
    said = torch.stack([results.predictions[norm] for norm in radii]).numpy()[first, np.arange(len(rows))]
    return rows.assign(
        broken=rows["broken"] | new,
        adversarial_prediction=np.where(new, said, rows["adversarial_prediction"]),
        found_in_norm=np.where(new, np.array(list(radii))[first], rows["found_in_norm"]),
    )
