"""`--json`: what a command found as one JSON document. docs/json.md is its contract, which a test holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from pydantic import BaseModel

from bench.core.files import json_text
from bench.core.version import code_version
from bench.leaderboard.metrics import MetricKey
from bench.runs.failures import Failures

if TYPE_CHECKING:
    from bench.catalog.models import ModelEntry
    from bench.catalog.suites import Suite
    from bench.comparison.compare import SuiteComparison
    from bench.comparison.gate import RegressionReport
    from bench.data.loading import Source
    from bench.leaderboard.boards import Board, Cell, Column, Row
    from bench.runs.execute import RunOutcome

SCHEMA_VERSION = 2
"""Of all documents; it grows when a field goes or changes its meaning, and not when one is added.

2: `check` has what of the baseline was not compared in a field of its own, not among the verdicts.
"""


def print_json(command: str, **content: Any) -> None:
    """Print the one document of a command that was asked for `--json`."""
    head = {"schema_version": SCHEMA_VERSION, "command": command, "bench_version": code_version()}
    typer.echo(json_text(plain(head | content)), nl=False)


def plain(value: Any) -> Any:
    """Dataclasses and pydantic models as objects, a metric's key as five fields beside the others, paths as text."""
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    if is_dataclass(value):
        flat: dict[str, Any] = {}
        for field in fields(value):
            one = plain(getattr(value, field.name))
            flat |= one if isinstance(getattr(value, field.name), MetricKey) else {field.name: one}
        return flat
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def failure_entries(failures: Failures) -> list[dict[str, str]]:
    """Runs that came to nothing; the suite is empty where a model, or its data set, can be judged under none."""
    return [{"model": one.model, "suite": one.suite, "reason": one.reason} for one in failures.found]


def run_entry(outcome: RunOutcome) -> dict[str, Any]:
    """A finished run: the columns of its rows in leaderboard.csv, its metrics and what it noticed."""
    from bench.leaderboard.rows import run_columns

    return {
        **run_columns(outcome.manifest), "examples": outcome.plan.examples, "elapsed": outcome.elapsed,
        "workers": outcome.workers, "resumed_units": outcome.resumed_units, "folder": outcome.folder,
        "counters": outcome.counters, "findings": outcome.findings, "metrics": outcome.metrics,
    }  # fmt: skip


def verdict_entry(verdict: RegressionReport) -> dict[str, Any]:
    """The gate's word on one model and suite, with the numbers it was judged by."""
    compared = verdict.comparison
    return {
        "model": verdict.model, "suite": verdict.suite, "passed": verdict.passed, "seconds": verdict.seconds,
        "baseline_run_id": compared and compared.runs[0], "run_id": verdict.run_id or None,
        "remarks": verdict.remarks, "metrics": compared_metrics(compared) if compared else _new_metrics(verdict),
    }  # fmt: skip


def _new_metrics(verdict: RegressionReport) -> list[dict[str, Any]]:
    """Those of a run that nothing was compared with, as comparisons that lack their first half."""
    lacking = dict.fromkeys(("first", "difference", "ci_low", "ci_high", "p_value", "p_adjusted"))
    return [
        {**plain(one.key), "direction": one.direction, "unit": one.unit, "n_examples": one.n_examples,
         "second": one.value, "test": "", "gained": [], "lost": [], **lacking}
        for one in verdict.metrics
    ]  # fmt: skip


def not_compared_entries(verdicts: Sequence[RegressionReport]) -> list[dict[str, str]]:
    """What the baseline has and the gate did not look at."""
    names = ("dataset", "model", "suite")
    return [dict(zip(names, one, strict=True)) for verdict in verdicts for one in verdict.not_compared]


def comparison_entry(found: SuiteComparison) -> dict[str, Any]:
    return {
        "dataset": found.dataset, "suite": found.suite, "title": found.title, "runs": found.runs,
        "doubts": [doubt for doubt in found.doubts if doubt], "metrics": compared_metrics(found),
        "unpaired": [plain(key) for key in found.unpaired],
    }  # fmt: skip


def compared_metrics(found: SuiteComparison) -> list[dict[str, Any]]:
    return [
        {**plain(one), "difference": one.difference, "p_adjusted": adjusted}
        for one, adjusted in zip(found.comparisons, found.adjusted, strict=True)
    ]


def board_entry(board: Board) -> dict[str, Any]:
    """One table of the leaderboard; its rows are sorted by the metric `sort`, best first."""
    return {**board.shared, "sort": _column(board.sort), "rows": [_row_entry(board, row) for row in board.rows]}


def _row_entry(board: Board, row: Row) -> dict[str, Any]:
    return {
        "model": None if board.of_methods else row.name, "method": row.name if board.of_methods else row.method,
        "models": row.models if board.of_methods else 1, "run_id": row.run_id or None, "rank": row.rank,
        "best_known": row.best_known or None, "apart": row.apart,
        "metrics": [
            {**_column(column), **_cell_entry(cell)}
            for column, cell in zip(board.columns, row.cells, strict=True)
            if cell is not None
        ],
    }  # fmt: skip


def _cell_entry(cell: Cell) -> dict[str, Any]:
    found: dict[str, Any] = plain(cell)
    return found | {"n_examples": min(found.pop("counts"), default=None), "models": cell.models or 1}


def _column(column: Column) -> dict[str, Any]:
    return {"label": column.label, **plain(column.key), "direction": column.direction, "unit": column.unit}


def model_entry(entry: ModelEntry) -> dict[str, Any]:
    return {"name": entry.card.name, "folder": entry.folder, "card": entry.card.model_dump(exclude_none=True)}


def suite_entry(suite: Suite) -> dict[str, Any]:
    return {**suite.file.model_dump(), "path": suite.path, "sha256": suite.sha256, "extends": suite.extends}


def dataset_entry(source: Source) -> dict[str, Any]:
    """One split of a data set; what is not known before its files are read is null."""
    from bench.data import DATASETS

    spec = DATASETS.get(source.name)
    return {
        "name": source.name, "split": source.split, "found": source.where, "problem": source.problem or None,
        "channels": spec and spec.in_channels, "image_size": spec and spec.image_size,
        "num_classes": spec and spec.num_classes, "licence": spec and spec.licence,
        "fetchable": bool(spec and spec.torchvision_class),
    }  # fmt: skip
