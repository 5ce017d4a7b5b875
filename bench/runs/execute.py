"""Executing a plan: an executor does the units, this process alone writes each down; then the leaderboard."""

from __future__ import annotations

import json
import logging
import platform
import time
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.core.errors import BenchError
from bench.core.version import code_version, commit
from bench.executors.base import Executor
from bench.executors.local_pool import LocalPool
from bench.leaderboard.evidence.runs import RunFolder, open_run
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import Metric
from bench.leaderboard.rows import run_rows
from bench.leaderboard.table import append_rows
from bench.protocols.clean_pass import guessing_findings
from bench.protocols.robustness.claims import claim_findings
from bench.runs.plan import RunPlan

logger = logging.getLogger(__name__)


class Observer:
    """Whoever watches a run; the command line draws a progress bar with it."""

    def run_started(self, plan: RunPlan, run: RunFolder, done: int) -> None:
        """Called before the first unit; `done` is the work that an earlier, stopped process has left."""

    def advanced(self, amount: int) -> None:
        """Called as work is done, in the measure of `RunPlan.work`; negative where a lost worker's has to be redone."""

    def run_finished(self, outcome: RunOutcome) -> None:
        """Called after the leaderboard has the run's rows."""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """A finished run."""

    plan: RunPlan
    run_id: str
    folder: Path
    metrics: list[Metric]
    findings: list[Finding]
    counters: dict[str, int]
    seconds: float
    """Of all units, added up, whichever process computed them."""
    elapsed: float
    """By the clock, in this process: less than `seconds` where units were computed side by side or earlier."""
    workers: int
    resumed_units: int


def execute(
    plan: RunPlan,
    leaderboard: Path,
    *,
    fresh: bool = False,
    observer: Observer | None = None,
    executor: Executor | None = None,
) -> RunOutcome:
    """Run a plan to its end and append its rows to the leaderboard.

    A stopped run of the same plan is resumed: units whose records are on the disk are not computed again.

    Args:
        executor: computes the units; by default this process does.

    Raises:
        BenchError: results cannot be written, the model fails on an image, or the executor cannot go on.
        KeyboardInterrupt: passed on, after the units that are done have been kept.
    """
    began = time.monotonic()
    observer, executor = observer or Observer(), executor or LocalPool()
    label = f"{plan.dataset.name}-{plan.entry.card.id}-{plan.suite.name}"
    run = open_run(leaderboard, label, plan.facts(), fresh=fresh, answers=plan.answers)
    try:
        done = run.parts_done() & {unit.index for unit in plan.units}
        run.manifest.update(_metadata(plan), **executor.metadata(), device=executor.device_of(plan))
        observer.run_started(plan, run, sum(plan.work_of(unit) for unit in plan.units if unit.index in done))
        missing = [unit for unit in plan.units if unit.index not in done]
        with closing(executor.compute(plan, missing, observer.advanced)) as finished_units:
            for unit in finished_units:
                run.manifest.update(executor.metadata())
                run.save_part(unit.index, unit.records, unit.facts)
        outcome = _finish(plan, run, leaderboard, len(done), began)
    except KeyboardInterrupt:
        run.stop("interrupted")
        raise
    except BaseException as error:
        with suppress(BenchError):  # the disk may be what has failed
            run.stop("failed", _reason(error))
        raise
    finally:
        run.release()
    observer.run_finished(outcome)
    return outcome


def _finish(plan: RunPlan, run: RunFolder, leaderboard: Path, resumed: int, began: float) -> RunOutcome:
    records = run.records(len(plan.units))
    metrics = plan.protocol.metrics(plan.dataset.name, records)
    # in the order of the units, whichever came in first
    units: list[dict[str, Any]] = [run.manifest["units"][str(unit.index)] for unit in plan.units]
    seconds = round(sum(float(unit["seconds"]) for unit in units), 2)
    counters: dict[str, int] = {}
    for unit in units:
        for name, value in unit["counters"].items():
            counters[name] = counters.get(name, 0) + int(value)
    findings = _merge_findings([finding for unit in units for finding in unit["findings"]], len(units))
    findings += [*plan.protocol.findings(counters), *claim_findings(counters, plan.precision)]
    findings += [*guessing_findings(metrics, plan.dataset.num_classes), *_precision_findings(plan)]
    device = _devices(units)
    run.write_examples(
        records,
        {
            "device": device,
            "batch_size": min(int(unit.get("batch_size", plan.batch_size)) for unit in units),
            "metrics": [metric.as_dict() for metric in metrics],
            "counters": counters,
            "findings": [finding.as_dict() for finding in findings],
            "seconds": seconds,
        },
    )
    append_rows(leaderboard, run_rows(run.manifest, metrics))
    run.finish()
    elapsed, workers = round(time.monotonic() - began, 2), int(run.manifest["executor"]["workers"])
    return RunOutcome(plan, run.run_id, run.path, metrics, findings, counters, seconds, elapsed, workers, resumed)


def _reason(error: BaseException) -> str:
    """One line about what ended a run, for its manifest."""
    kind = "" if isinstance(error, BenchError) else f"{type(error).__name__}: "
    return " ".join(f"{kind}{error}".split())[:300]


def _devices(units: Iterable[dict[str, Any]]) -> str:
    """Where the units were computed; several kinds where the machines differ, or a run went on on another one."""
    return ", ".join(sorted({str(unit["device"]) for unit in units}))


def _merge_findings(found: list[dict[str, Any]], units: int) -> list[Finding]:
    """One finding for each id; the evidence says in how many units it was seen."""
    merged: dict[str, Finding] = {}
    counts: dict[str, int] = {}
    for entry in found:
        counts[entry["id"]] = counts.get(entry["id"], 0) + 1
        merged.setdefault(entry["id"], Finding(**entry))
    return [
        finding
        if units == 1
        else Finding(
            finding.id, finding.severity, f"{finding.evidence}; so in {counts[name]} of {units} units", finding.advice
        )
        for name, finding in merged.items()
    ]


def _precision_findings(plan: RunPlan) -> list[Finding]:
    if plan.precision == "float32":
        return []
    return [
        Finding(
            "search_precision", "note",
            f"adversarial examples were looked for in {plan.precision} and confirmed in float32",
            "robust accuracy may lie up to a point above float32's; compare runs of one precision",
        )
    ]  # fmt: skip


def _metadata(plan: RunPlan) -> dict[str, Any]:
    """What did not decide the verdicts but belongs to the evidence."""
    return {
        "card": json.loads(plan.entry.card.model_dump_json(exclude_none=True)),
        "suite": json.loads(plan.suite.file.model_dump_json()),
        "data_source": _public_source(plan.dataset.source),
        "batch_size": plan.batch_size,
        "precision": plan.precision,
        "dependencies_sha256": plan.dependencies_sha256,
        "versions": {
            "bench": code_version(),
            "commit": commit(),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    }


def _public_source(source: str) -> str:
    """Where the data came from, without the folders above: evidence gets published, a home folder's name should not."""
    path = Path(source)
    return "/".join(path.parts[-2:]) if path.is_absolute() else source
