"""The runs behind a page: their manifests and what they noticed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.core.errors import BenchError
from bench.leaderboard.evidence.doubts import row_doubt
from bench.leaderboard.evidence.manifest import Manifest, check_records, read_manifest
from bench.leaderboard.findings import Finding, masking_verdict


@dataclass(frozen=True, slots=True)
class Run:
    """One finished run that the page shows.

    Attributes:
        shared: the columns of the leaderboard that all its rows share.
        examples: how many images the run was over; a metric can be over fewer.
        manifest: None where the evidence cannot be read, which `problem` then says.
        doubt: what the rows say that the evidence does not, or that the records are not those of the manifest.
    """

    run_id: str
    model: str
    shared: Mapping[str, Any]
    examples: int
    rows: pd.DataFrame
    manifest: Manifest | None
    problem: str
    doubt: str = ""

    @property
    def reference(self) -> dict[str, float]:
        """Norm -> reference radius of this data set; empty where the suite names none."""
        return {} if self.manifest is None else self.manifest.suite.reference(str(self.shared["dataset"]))

    @property
    def findings(self) -> list[Finding]:
        """What the run noticed besides its numbers."""
        return [] if self.manifest is None else self.manifest.result.findings

    @property
    def masking(self) -> str:
        """The verdict of the gradient-masking report, e.g. `no sign`; empty where the run made none."""
        return masking_verdict(self.findings)

    @property
    def measured_as(self) -> str:
        """Digest of protocol and parameters: equal for suites that differ in the number of images alone."""
        suite = self.manifest and self.manifest.suite
        return json.dumps(suite and [suite.protocol, suite.parameters], sort_keys=True)


def shared_reference(runs: Iterable[Run]) -> dict[str, float]:
    """Norm -> reference radius of runs of one suite, by the first whose manifest can be read."""
    return next(filter(None, (run.reference for run in runs)), {})


def read_runs(rows: pd.DataFrame, leaderboard: Path) -> list[Run]:
    """Every run that the rows name, in the order in which they first come.

    A run whose manifest is missing or damaged is still shown: its numbers are in the rows.
    """
    runs, columns = [], rows.columns.tolist()
    for run_id, group in rows.groupby("run_id", sort=False):
        first = group.iloc[0]
        problem, doubt, manifest = "", "", None
        folder = leaderboard / "runs" / str(run_id)
        try:
            manifest = read_manifest(folder)
            check_records(folder, manifest)
            doubt = row_doubt(manifest, {name: group[name].tolist() for name in columns})
        except BenchError as error:
            problem, doubt = ("", str(error)) if manifest else (str(error), "")
        model = f"{first['dataset']}/{first['model']}"
        runs.append(
            Run(
                run_id=str(run_id), model=model, shared=dict(first), examples=int(group["n_examples"].max()),
                rows=group, manifest=manifest, problem=problem, doubt=doubt,
            )
        )  # fmt: skip
    return runs
