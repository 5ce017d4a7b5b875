"""Executing a plan on this machine: unit after unit, each written down when done, then the leaderboard."""

from __future__ import annotations

import json
import logging
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import bench
from bench.catalog.models import load_model
from bench.core.devices import current_device, device_label
from bench.core.memory import keep_freed_memory
from bench.core.precision import float32_products
from bench.orchestration.batch_size import evaluate_within_memory
from bench.orchestration.plan import RunPlan, WorkUnit
from bench.protocols import EvaluationContext
from bench.results.findings import Finding
from bench.results.leaderboard import append_rows
from bench.results.metrics import Metric
from bench.results.runs import RunFolder, leaderboard_rows, open_run

logger = logging.getLogger(__name__)


class Observer:
    """Whoever watches a run; the command line draws a progress bar with it."""

    def run_started(self, plan: RunPlan, run: RunFolder, done: int) -> None:
        """Called before the first unit; `done` is the work that an earlier, stopped process has left."""

    def advanced(self, amount: int) -> None:
        """Called as work is done, in the measure of `RunPlan.work`."""

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
    resumed_units: int


def execute(plan: RunPlan, leaderboard: Path, *, fresh: bool = False, observer: Observer | None = None) -> RunOutcome:
    """Run a plan to its end and append its rows to the leaderboard.

    A stopped run of the same plan is resumed: units whose records are on the disk are not computed again.

    Raises:
        BenchError: results cannot be written, or the model fails on an image.
        KeyboardInterrupt: passed on, after the units that are done have been kept.
    """
    observer = observer or Observer()
    label = f"{plan.dataset.name}-{plan.entry.card.id}-{plan.suite.name}"
    run = open_run(leaderboard, label, plan.facts(), fresh=fresh)
    try:
        done = run.parts_done()
        run.manifest.update(_circumstances(plan))
        ready = [unit for unit in plan.units if unit.index in done]
        observer.run_started(plan, run, sum(plan.work_of(unit) for unit in ready))
        keep_freed_memory()
        with current_device(plan.device), float32_products():
            model = load_model(plan.entry, plan.device).to(memory_format=torch.channels_last)
            batch_size = plan.batch_size
            for unit in plan.units:
                if unit.index not in done:
                    batch_size = _run_unit(plan, unit, model, run, observer, batch_size)
        outcome = _finish(plan, run, leaderboard, len(done))
    except KeyboardInterrupt:
        run.interrupt()
        raise
    finally:
        run.release()
    observer.run_finished(outcome)
    return outcome


def _run_unit(
    plan: RunPlan, unit: WorkUnit, model: torch.nn.Module, run: RunFolder, observer: Observer, batch_size: int
) -> int:
    """Evaluate a unit and write it down; returns the batch size that memory was enough for."""
    began = time.perf_counter()
    context = EvaluationContext(
        model=model,
        model_name=plan.entry.card.name,
        dataset=plan.dataset,
        start=unit.start,
        stop=unit.stop,
        seed=plan.seed,
        device=plan.device,
        batch_size=batch_size,
        on_progress=observer.advanced,
        examples=plan.examples,
        training=plan.training,
        precision=plan.precision,
    )
    result, fitting = evaluate_within_memory(plan.protocol, context)
    run.manifest["batch_size"] = fitting
    facts = {
        "start": unit.start,
        "stop": unit.stop,
        "seconds": round(time.perf_counter() - began, 3),
        "device": device_label(plan.device),
        "batch_size": fitting,
        "counters": result.counters,
        "findings": [finding.as_dict() for finding in result.findings],
    }
    run.save_part(unit.index, result.records, facts)
    return fitting


def _finish(plan: RunPlan, run: RunFolder, leaderboard: Path, resumed: int) -> RunOutcome:
    records = run.records(len(plan.units))
    metrics = plan.protocol.metrics(plan.dataset.name, records)
    units: list[dict[str, Any]] = list(run.manifest["units"].values())
    seconds = round(sum(float(unit["seconds"]) for unit in units), 2)
    counters: dict[str, int] = {}
    for unit in units:
        for name, value in unit["counters"].items():
            counters[name] = counters.get(name, 0) + int(value)
    findings = _merge_findings([finding for unit in units for finding in unit["findings"]], len(units))
    findings += [*plan.protocol.findings(counters), *_precision_findings(plan)]
    run.write_examples(
        records,
        {
            "metrics": [metric.as_dict() for metric in metrics],
            "counters": counters,
            "findings": [finding.as_dict() for finding in findings],
            "seconds": seconds,
        },
    )
    append_rows(
        leaderboard, leaderboard_rows(_common_columns(plan, run, seconds), [metric.as_dict() for metric in metrics])
    )
    run.finish()
    return RunOutcome(plan, run.run_id, run.path, metrics, findings, counters, seconds, resumed)


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


def _circumstances(plan: RunPlan) -> dict[str, Any]:
    """What did not decide the verdicts but belongs to the evidence."""
    return {
        "card": json.loads(plan.entry.card.model_dump_json(exclude_none=True)),
        "suite": json.loads(plan.suite.file.model_dump_json()),
        "data_source": _public_source(plan.dataset.source),
        "device": device_label(plan.device),
        "batch_size": plan.batch_size,
        "threads": torch.get_num_threads(),
        "versions": {"bench": bench.__version__, "torch": str(torch.__version__), "python": platform.python_version()},
    }


def _common_columns(plan: RunPlan, run: RunFolder, seconds: float) -> dict[str, Any]:
    card = plan.entry.card
    return {
        "run_id": run.run_id,
        "finished_at": run.manifest["finished_at"],
        "model": card.id,
        "method": card.method,
        "dataset": card.dataset,
        "split": plan.dataset.split,
        "suite": plan.suite.name,
        "suite_version": plan.suite.file.version,
        "seed": plan.seed,
        "model_sha256": card.weights.sha256,
        "data_sha256": plan.dataset.sha256,
        "suite_sha256": plan.suite.sha256,
        "bench_version": bench.__version__,
        "torch_version": str(torch.__version__),
        "device": device_label(plan.device) + ("" if plan.precision == "float32" else f", {plan.precision} search"),
        "seconds": seconds,
    }


def _public_source(source: str) -> str:
    """Where the data came from, without the folders above: evidence gets published, a home folder's name should not."""
    path = Path(source)
    return "/".join(path.parts[-2:]) if path.is_absolute() else source
