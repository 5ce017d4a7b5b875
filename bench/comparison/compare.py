"""Two models of one leaderboard, suite by suite and example by example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench.comparison.evidence import evidence_doubt, row_values
from bench.core.errors import BenchError, bench_command
from bench.core.names import unknown_name
from bench.leaderboard.comparable import COMPARABLE, table_notes, table_title
from bench.leaderboard.evidence.union_note import union_note, union_radii
from bench.leaderboard.metrics import MetricKey, keys_of
from bench.leaderboard.statistics.paired import Comparison, compare_defined, compare_values, holm, share_values
from bench.leaderboard.table import of_newest_versions, read_leaderboard, select_rows


@dataclass(frozen=True)
class SuiteComparison:
    """All metrics of two runs of one suite; p-values are Holm's, over those that can be worse.

    Attributes:
        title: what the two runs share.
        runs: the two run ids.
        unpaired: metrics that have no per-example evidence, no example with a value in both runs, or an infinite value.
        infinite: those of them that are infinite for an example of either run.
        defined: on how many examples each metric has a value, of those that can be worse and are not defined on all.
        doubts: for each of the two runs, what its rows say that its evidence does not; empty where they agree.
    """

    title: str
    suite: str
    dataset: str
    runs: tuple[str, str]
    comparisons: list[Comparison]
    adjusted: list[float]
    unpaired: list[MetricKey]
    infinite: Sequence[MetricKey] = ()
    doubts: tuple[str, str] = ("", "")
    defined: Sequence[Comparison] = ()


def compare_models(
    first: str, second: str, leaderboard: Path, *, dataset: str | None = None, suite: str | None = None
) -> tuple[list[SuiteComparison], list[str]]:
    """Compare the latest comparable runs of two models in every suite that both have, under its newest version.

    Models are named by id, or as data set/id, suites and data sets by name or wildcard.

    Returns:
        the comparisons, and for each suite that could not be compared why.

    Raises:
        BenchError: a model is not on the leaderboard, no suite has both on the same images, or of none there is
            evidence that can be read.
    """
    rows = select_rows(read_leaderboard(leaderboard), suite=[suite], dataset=[dataset])
    # a metric of the correctly classified examples alone has fewer; a run's number is its largest
    runs = rows.assign(n_examples=rows.groupby("run_id")["n_examples"].transform("max"))
    of_first, of_second = _rows_of(first, runs), _rows_of(second, runs)
    if set(of_first["dataset"]).isdisjoint(of_second["dataset"]):
        names = [", ".join(sorted(set(own["dataset"]))) for own in (of_first, of_second)]
        raise BenchError(f"{first} is of {names[0]}, {second} of {names[1]}: no image is common to them.")
    columns = list(COMPARABLE)
    shared = of_first[columns].drop_duplicates().merge(of_second[columns].drop_duplicates(), on=columns)
    newest = of_newest_versions(shared.assign(run_id=range(len(shared)), model=""))
    if newest.empty:
        raise BenchError(
            f"{first} and {second} have no run of the same suite, version, images and seed; "
            f"run both: {bench_command('run', model=[first, second], suite='cross_norm')}"
        )
    found, skipped = [], []
    order = ["dataset", "split", "suite", "suite_version"]  # as the leaderboard's tables stand
    newest = newest.sort_values(order, ascending=[True, True, True, False], kind="stable")
    tables = [dict(zip(columns, values, strict=True)) for values in newest[columns].itertuples(index=False)]
    for common, note in zip(tables, table_notes(tables), strict=True):
        latest = [latest_run(own[(own[columns] == pd.Series(common)).all(axis=1)]) for own in (of_first, of_second)]
        pair = [rows[rows["run_id"] == run_id] for run_id in latest]
        radii = union_radii(leaderboard, latest, set(pair[0]["metric"]))
        title = table_title(common, note) + union_note(radii)
        try:
            found.append(compare_runs(title, (pair[0], pair[1]), (leaderboard, leaderboard)))
        except BenchError as error:
            skipped.append(f"{common['suite']} is not compared: {error}")
    if not found:
        raise BenchError("; ".join(skipped))
    return found, skipped


def compare_runs(
    title: str, pair: tuple[pd.DataFrame, pd.DataFrame], leaderboards: tuple[Path, Path]
) -> SuiteComparison:
    """Compare the rows and the evidence of two runs; raises BenchError where evidence cannot be read."""
    runs = (str(pair[0]["run_id"].iloc[0]), str(pair[1]["run_id"].iloc[0]))
    folders = [folder / "runs" / run_id for folder, run_id in zip(leaderboards, runs, strict=True)]
    values = [row_values(folder, own) for folder, own in zip(folders, pair, strict=True)]
    doubts = (evidence_doubt(folders[0], pair[0]), evidence_doubt(folders[1], pair[1]))
    own = [key for key in dict.fromkeys(keys_of(pd.concat(pair))) if not key.is_external]
    both = {key: (values[0][key], values[1][key]) for key in own if all(key in found for found in values)}
    infinite = [key for key, pair in both.items() if any(np.isinf(one.values.astype(float)).any() for one in pair)]
    finite = [pair for key, pair in both.items() if key not in infinite]
    comparisons = [compare_values(*pair) for pair in finite if share_values(*pair)]
    unpaired = [key for key in own if key not in {one.key for one in comparisons}]
    partial = [pair for pair in both.values() if any(one.values.hasnans for one in pair)]
    defined = [compare_defined(*pair) for pair in partial if pair[1].direction != "descriptive"]
    return SuiteComparison(
        title=title, suite=str(pair[0]["suite"].iloc[0]), dataset=str(pair[0]["dataset"].iloc[0]), runs=runs,
        comparisons=comparisons, adjusted=_adjusted(comparisons), unpaired=unpaired, infinite=infinite,
        doubts=doubts, defined=defined,
    )  # fmt: skip


def _adjusted(comparisons: list[Comparison]) -> list[float]:
    """P-values by Holm's correction over the metrics that can be worse; what only describes is a family of its own."""
    found: dict[MetricKey, float] = {}
    for descriptive in (False, True):
        family = [one for one in comparisons if (one.direction == "descriptive") == descriptive]
        adjusted = holm([one.p_value for one in family])
        found |= {one.key: p_value for one, p_value in zip(family, adjusted, strict=True)}
    return [found[one.key] for one in comparisons]


def _rows_of(name: str, rows: pd.DataFrame) -> pd.DataFrame:
    full = rows["dataset"] + "/" + rows["model"]
    own = rows[(rows["model"] == name) | (full == name)]
    if own.empty:
        raise unknown_name(name, set(rows["model"]), "model of the leaderboard")
    return own


def latest_run(rows: pd.DataFrame) -> str:
    """The id of the run that finished last."""
    return str(rows.sort_values("finished_at", kind="stable")["run_id"].iloc[-1])
