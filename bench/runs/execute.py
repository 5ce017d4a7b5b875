"""Executing a plan: an executor does the units, this process alone writes each down; then the leaderboard."""

from __future__ import annotations

import logging
import platform
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bench.core.errors import BenchError
from bench.core.files import home, shared_text
from bench.core.precision import uncompiled
from bench.core.version import code_version, commit, cpu_name, package_versions
from bench.executors.base import Executor
from bench.executors.local_pool import LocalPool
from bench.leaderboard.controls import control_findings
from bench.leaderboard.evidence.columns import summed
from bench.leaderboard.evidence.manifest import Environment, Manifest, Result
from bench.leaderboard.evidence.runs import RunFolder, open_run
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import Metric
from bench.leaderboard.rows import run_rows
from bench.leaderboard.table import append_rows
from bench.protocols.clean_pass import guessing_findings
from bench.protocols.robustness.claims import claim_findings
from bench.runs.pieces import missing_units
from bench.runs.plan import RunPlan

logger = logging.getLogger(__name__)


class Observer:
    """Watches a run; the command line draws a progress bar with it."""

    def run_started(self, done: int) -> None:
        """Called before the first unit; `done` is the work that an earlier, stopped process has left."""

    def advanced(self, amount: int) -> None:
        """Called as work is done, in the measure of `RunPlan.work`; negative where a lost worker's has to be redone."""

    def run_stopped(self, plan: RunPlan, kept: int) -> None:
        """Called where Ctrl-C has ended it; `kept` is the work that need not be done again."""

    def run_finished(self, outcome: RunOutcome) -> None:
        """Called after the leaderboard has the run's rows."""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """A finished run."""

    plan: RunPlan
    folder: Path
    manifest: Manifest
    elapsed: float
    """By the clock, in this process: less than `seconds` where units were computed side by side or earlier."""
    resumed_units: int

    @property
    def run_id(self) -> str:
        return self.manifest.run_id

    @property
    def metrics(self) -> list[Metric]:
        return self.manifest.result.metrics

    @property
    def findings(self) -> list[Finding]:
        return self.manifest.result.findings

    @property
    def counters(self) -> dict[str, int]:
        return self.manifest.result.counters

    @property
    def workers(self) -> int:
        return self.manifest.environment.executor.workers

    @property
    def seconds(self) -> float:
        """Of all units, added up, whichever process computed them."""
        return self.manifest.result.seconds


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
    run = open_run(leaderboard, new_manifest(plan, executor), fresh=fresh)
    try:
        done, missing = len(run.manifest.units), missing_units(plan, run.manifest.units.values())
        observer.run_started(plan.work - sum(map(plan.work_of, missing)))
        with closing(executor.compute(plan, missing, observer.advanced)) as finished_units:
            for unit in finished_units:
                run.manifest.environment.executor = executor.stats()
                run.save_part(unit.index, unit.records, unit.stats, unit.adversarial)
        outcome = _finish(plan, run, leaderboard, done, began=began)
    except KeyboardInterrupt:
        run.stop("interrupted")
        if run.manifest.status != "finished":
            left = missing_units(plan, run.manifest.units.values())
            observer.run_stopped(plan, plan.work - sum(map(plan.work_of, left)))
        raise
    except BaseException as error:
        kind = "" if isinstance(error, BenchError) else f"{type(error).__name__}: "
        with suppress(Exception):  # the disk may be what has failed, or what the manifest was given
            run.stop("failed", shared_text(" ".join(f"{kind}{error}".split()))[:300])
        raise
    finally:
        run.release()
    observer.run_finished(outcome)
    return outcome


def new_manifest(plan: RunPlan, executor: Executor) -> Manifest:
    """The record of a run that starts now: what identifies it, and what describes it."""
    return Manifest(
        run_id="",
        config=plan.config,
        request=plan.request,
        card=plan.entry.card,
        suite=plan.suite.file,
        data_source=_public_source(plan.dataset.source),
        answers=plan.answers,
        environment=Environment(
            bench=code_version(),
            torch=str(torch.__version__),
            python=platform.python_version(),
            commit=commit(),
            cpu=cpu_name(),
            packages=package_versions(),
            batch_size=plan.batch_size,
            executor=executor.stats(),
        ),
    )


def _finish(plan: RunPlan, run: RunFolder, leaderboard: Path, resumed: int, began: float) -> RunOutcome:
    records = run.records()
    units = [run.manifest.units[index] for index in run.in_order()]
    environment = run.manifest.environment
    # several where the machines differ, or a run went on on another one
    environment.device = ", ".join(sorted({unit.device for unit in units}))
    environment.batch_size = min(unit.batch_size for unit in units)
    metrics = plan.protocol.checked_metrics(plan.dataset.name, records, plan.examples)
    counters = summed(unit.counters for unit in units)
    findings = _merge_findings([finding for unit in units for finding in unit.findings], len(units))
    findings += [*plan.protocol.findings(counters), *claim_findings(counters, plan.precision)]
    findings += [*guessing_findings(metrics, plan.dataset.num_classes), *_precision_findings(plan)]
    findings += control_findings(metrics)
    seconds = round(sum(unit.seconds for unit in units), 2)
    result = Result(metrics=metrics, findings=findings, counters=counters, seconds=seconds)
    run.write_result(records, result)
    append_rows(leaderboard, run_rows(run.manifest))
    run.finish()
    elapsed = round(time.monotonic() - began, 2)
    return RunOutcome(plan, run.path, run.manifest, elapsed, resumed_units=resumed)


def _merge_findings(found: list[Finding], units: int) -> list[Finding]:
    """One finding for each id; the evidence says in how many units it was seen."""
    counts = Counter(finding.id for finding in found)
    first = {finding.id: finding for finding in reversed(found)}
    return [
        first[name]
        if units == 1
        else replace(first[name], evidence=f"{first[name].evidence}; so in {count} of {units} units")
        for name, count in counts.items()
    ]


def _precision_findings(plan: RunPlan) -> list[Finding]:
    if plan.precision == "float32":
        return []
    name = uncompiled(plan.precision)
    how = name if name == plan.precision else f"{name}, through torch.compile,"
    evidence = f"adversarial examples were looked for in {how} and confirmed in float32 by the net as it is"
    least = "rounding apart from" if name == "float32" else "up to a point above"
    advice = f"robust accuracy may lie {least} float32's; compare runs of one precision"
    return [Finding("search_precision", "note", evidence, advice)]


def _public_source(source: str) -> str:
    """Where the data came from, without the folders above: evidence gets published, a home folder's name should not."""
    path, own = Path(source), home()
    if own is not None and path.is_relative_to(own):
        return "/".join(path.relative_to(own).parts[-2:])
    return "/".join(path.parts[-2:]) if path.is_absolute() else source
