"""`bench check`: the regression gate for checkpoints in CI."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.executors import ExecutorOptions, at_work
from bench.cli.option_groups import with_groups
from bench.cli.options import (
    DEFAULT_LEADERBOARD,
    BatchSize,
    DataDir,
    Device,
    Download,
    ModelDataset,
    Program,
    Registry,
    SuitePath,
    parse_batch_size,
    seed_option,
)
from bench.cli.own_model import OwnModel

if TYPE_CHECKING:
    from bench.comparison.gate import GateRules, RegressionReport
    from bench.executors.base import Executor
    from bench.runs.plan import RunRequest

EXIT_REGRESSION = 1


@with_groups
def check(
    model: Annotated[list[str] | None, typer.Option("--model", help="As in `bench run`. [default: all]")] = None,
    suite: Annotated[
        list[str] | None, typer.Option("--suite", help="As in `bench run`. [default: cross_norm_quick]")
    ] = None,
    dataset: ModelDataset = None,
    baseline: Annotated[
        Path, typer.Option("--baseline", help="Leaderboard folder, with evidence, to compare with.")
    ] = DEFAULT_LEADERBOARD,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, max=1, help="How much worse a metric may become, as a share.")
    ] = 0.005,
    time_factor: Annotated[
        float, typer.Option("--time-factor", min=0, help="Warn above this many times the baseline's seconds; 0: never.")
    ] = 3.0,
    fail_on_time: Annotated[bool, typer.Option("--fail-on-time", help="Slowness is a regression too.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="What of the baseline was not compared is a regression too.")
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Add the new runs to the baseline, and print what changed.")
    ] = False,
    junit: Annotated[Path | None, typer.Option("--junit", help="JUnit XML file to write.", show_default=False)] = None,
    examples: Annotated[int | None, typer.Option("--examples", help="How many images. [default: the suite's]")] = None,
    seed: Annotated[int, seed_option("As in `bench run`.")] = 0,
    device: Device = "auto",
    batch_size: BatchSize = "auto",
    leaderboard: Annotated[
        Path | None,
        typer.Option("--leaderboard", help="Keep the new runs in this folder. [default: nowhere]", show_default=False),
    ] = None,
    data_dir: DataDir = None,
    download: Download = False,
    registry: Registry = None,
    program: Program = None,
    suite_path: SuitePath = None,
    *,
    own: OwnModel,
    place: ExecutorOptions,
) -> None:
    """Evaluate models again and compare them with a baseline, image by image.

    Exit code 0: no regression; 1: a metric is worse by more than the tolerance and not by chance, weights or data
    changed without a word, a new or graver warning, or a baseline that was edited; 2: it could not run.
    """
    from bench.cli.output.check_output import announce, summary_table, write_junit
    from bench.cli.output.rendering import output
    from bench.comparison.gate import GateRules
    from bench.runs.plan import RunRequest

    rules = GateRules(tolerance, time_factor or None, fail_on_time, strict)
    source = own.source_options(download=download, data_dir=data_dir)
    executor = place.choose(device)
    with ExitStack() as stack:
        folder = leaderboard or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-check-")))
        request = RunRequest(
            models=model or ["all"], suites=suite or ["cross_norm_quick"], leaderboard=folder, dataset=dataset,
            examples=examples, seed=seed, device=executor.planning_device(device),
            batch_size=parse_batch_size(batch_size), data_dir=data_dir, download=download, source=source,
            registry=registry, program=program, suite_path=suite_path,
        )  # fmt: skip
        verdicts = _evaluate(request, executor, baseline, rules, update=update)
        if update:
            from bench.leaderboard.merge import merge_leaderboards

            merge_leaderboards([folder], baseline)
    output().print(summary_table(verdicts))
    announce(verdicts)
    if junit is not None:
        write_junit(verdicts, junit)
        output().print(f"junit:    {junit}", soft_wrap=True)
    if update:
        output().print(f"baseline: {baseline} has the new runs now", soft_wrap=True)
    elif not all(verdict.passed for verdict in verdicts):
        raise typer.Exit(EXIT_REGRESSION)


def _evaluate(
    request: RunRequest, executor: Executor, baseline: Path, rules: GateRules, *, update: bool
) -> list[RegressionReport]:
    """Verdicts on all models and suites, and one on what else the baseline has."""
    from dataclasses import replace

    from bench.catalog.models import resolve_models
    from bench.catalog.suites import resolve_suites
    from bench.cli.output.rendering import messages
    from bench.cli.output.run_progress import RunProgress
    from bench.comparison.gate import (
        RegressionReport,
        check_regression,
        first_verdict,
        require_baseline,
        unchecked,
        weights_remarks,
    )
    from bench.protocols.registry import protocol_for
    from bench.runs.execute import execute
    from bench.runs.plan import plan_runs

    found = resolve_suites(request.suites, request.suite_path)
    suites, of_suites = [suite.name for suite in found], any(protocol_for(suite).takes_program for suite in found)
    entries = resolve_models(
        request.models, request.dataset, options=request.source, registry=request.registry,
        program=None if of_suites else request.program,
    )  # fmt: skip
    if not update:
        require_baseline([(entry.card.dataset, entry.card.id) for entry in entries], suites, baseline)
    looked_at = [(entry.card.dataset, entry.card.id, suite) for entry in entries for suite in suites]
    left = None if update else unchecked(looked_at, baseline, rules)
    verdicts = [] if left is None else [left]
    sound = []
    for entry in entries:
        remarks = weights_remarks(entry)
        if remarks:
            verdicts.append(RegressionReport(entry.card.name, "weights", 0.0, remarks))
        else:
            sound.append(entry)
    if not sound:
        return verdicts
    plans = plan_runs(
        replace(request, models=[], entries=sound, source=None, program=request.program if of_suites else None)
    )
    known = check_regression if not update else first_verdict
    with at_work(executor):
        for position, plan in enumerate(plans, start=1):
            with RunProgress(messages()) as progress:
                watch = progress.watch(plan, f"[{position}/{len(plans)}] ")
                outcome = execute(plan, request.leaderboard, fresh=True, observer=watch, executor=executor)
            verdicts.append(known(outcome, request.leaderboard, baseline, rules))
    return verdicts
