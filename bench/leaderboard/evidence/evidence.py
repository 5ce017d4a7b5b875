"""The evidence of a finished run: its manifest and records, whole and as they were written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import BenchError
from bench.core.files import leads_out, sha256_file
from bench.leaderboard.evidence.manifest import read_manifest
from bench.leaderboard.evidence.records import read_records
from bench.leaderboard.statistics.example_values import ExampleValues

if TYPE_CHECKING:
    import pandas as pd


def checked_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished run whose records are those that it names.

    Raises:
        BenchError: a file is missing, unreadable, or not what the run wrote (its digest differs).
    """
    manifest = read_manifest(folder)
    path = folder / "examples.parquet"
    if manifest.get("status") != "finished":
        raise BenchError(f"the run {folder} is not finished; run the same command again to finish it.")
    if leads_out(path, folder.parent.parent):
        raise BenchError(f"the evidence {path} is a link out of the leaderboard, which is not followed.")
    if not path.is_file():
        raise BenchError(f"the evidence {path} is missing; run the evaluation again.")
    if sha256_file(path) != manifest.get("examples_sha256"):
        raise BenchError(
            f"the evidence {path} is not what the run wrote (its digest differs from the manifest's); "
            "restore it from version control or run the evaluation again."
        )
    return manifest


def read_evidence(folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Manifest and records of a finished run; raises BenchError as `checked_manifest` does."""
    return checked_manifest(folder), read_records(folder / "examples.parquet")


def robust_values(records: pd.DataFrame, reference: Mapping[str, float]) -> list[ExampleValues]:
    """What robustness records say about each example: 1 where it survives, 0 where it does not.

    Clean accuracy, robust accuracy by attack, norm and radius, the worst attack where there are several, and the union
    of the norms at their `reference` radii.
    """
    first = records.drop_duplicates("example_id").set_index("example_id")
    values = [ExampleValues("clean_accuracy", (first["label"] == first["prediction"]).astype("float64"))]
    text = records.assign(attack=records["attack"].astype(str), norm=records["norm"].astype(str))
    attacks = list(dict.fromkeys(text["attack"]))
    for (attack, norm, eps), rows in text.groupby(["attack", "norm", "eps"], sort=False):
        values.append(_survived(rows, attack, norm, eps))
    worst = text.groupby(["example_id", "norm", "eps"])["broken"].any().reset_index().assign(attack="worst")
    if len(attacks) > 1 and "worst" not in attacks:
        for (norm, eps), rows in worst.groupby(["norm", "eps"], sort=False):
            values.append(_survived(rows, "worst", norm, eps))
    for attack in (*attacks, "worst"):
        union = _union(worst if attack == "worst" else text[text["attack"] == attack], reference, attack)
        values += [] if union is None else [union]
    return values


def _union(rows: pd.DataFrame, reference: Mapping[str, float], attack: str) -> ExampleValues | None:
    """Survival of every norm at its reference radius; None where a norm is missing."""
    at_reference = rows[rows["eps"] == rows["norm"].map(reference)]
    if not reference or at_reference["norm"].nunique() != len(reference):
        return None
    broken = at_reference.groupby("example_id")["broken"].any()
    return ExampleValues("union_accuracy", (~broken).astype("float64"), attack, "all")


def _survived(rows: pd.DataFrame, attack: Any, norm: Any, eps: Any) -> ExampleValues:
    survived = (~rows["broken"].astype(bool)).astype("float64").set_axis(rows["example_id"])
    return ExampleValues("robust_accuracy", survived, str(attack), str(norm), float(eps))
