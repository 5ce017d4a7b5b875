"""Others' adversarial images in a table: a model's numbers fall to the lowest that anybody's images have shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from bench.leaderboard.evidence.doubts import may_be_one_net
from bench.leaderboard.metrics import EXTERNAL, MetricKey, keys_of

_LOWERED = ["value", "ci_low", "ci_high"]


def is_external(rows: pd.DataFrame) -> pd.Series[bool]:
    """Which rows are of others' images."""
    return rows["attack"].str.startswith(EXTERNAL)


def lowered_rows(
    rows: pd.DataFrame, group: pd.DataFrame, leaderboard: Path | None
) -> tuple[pd.DataFrame, dict[str, str]]:
    """The rows, lowered where images that were verified against the very same net say less; and whose, by model.

    Args:
        rows: of the latest run of each model, without those of others' images.
        group: all rows that are comparable with them, of every run.
        leaderboard: where evidence tells nets of equal weights apart, as two programs are; None where there is none.
    """
    external = group[is_external(group)]
    whose: dict[str, list[str]] = {}
    if external.empty:
        return rows, {}
    rows = rows.copy()
    for model, own in rows.groupby("model", sort=False):
        same = (external["model"] == model) & (external["model_sha256"] == own["model_sha256"].iloc[0])
        if leaderboard is not None:
            run = own["run_id"].iloc[0]
            of_it = [one for one in external["run_id"][same].unique() if may_be_one_net(leaderboard, run, one)]
            same &= external["run_id"].isin(of_it)
        verdicts = _verdicts(keys_of(own), own.index)
        for key, (_, found) in zip(keys_of(external[same]), external[same].iterrows(), strict=True):
            place = verdicts.get(replace(key, attack=""))
            if place is not None and found["value"] < rows.loc[place, "value"]:
                rows.loc[place, _LOWERED] = found[_LOWERED].astype(float)
                whose.setdefault(str(model), []).append(key.attack)
    return rows, {model: ", ".join(dict.fromkeys(names)) for model, names in whose.items()}


def _verdicts(keys: Sequence[MetricKey], places: pd.Index) -> dict[MetricKey, int]:
    """Without its attack, where each number stands that is of all attacks of the suite together."""
    found: dict[MetricKey, int] = {}
    for key, place in zip(keys, places, strict=True):
        anonymous = replace(key, attack="")
        if anonymous not in found or key.attack == "worst":
            found[anonymous] = place
    return found
