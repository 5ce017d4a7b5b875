"""`bench check`: the regression gate for checkpoints in CI."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.option_groups import Evaluation, ExecutorOptions, OwnModel, with_groups
from bench.cli.options import (
    DEFAULT_LEADERBOARD,
    EXIT_FAILED,
    EXIT_NEGATIVE,
    FailFast,
    FailOn,
    Json,
    masking_to_fail_on,
    require_masking_probe,
    warn_of_broken_cards,
)
from bench.cli.output.rendering import messages, output, tell_failures, tell_skipped
from bench.core.errors import BenchError
from bench.runs.failures import Failure, Failures

if TYPE_CHECKING:
    from bench.comparison.gate import GateRules, RegressionReport
    from bench.executors.base import Executor
    from bench.runs.plan import RunRequest


@dataclass(frozen=True)
class Gate:
    """What counts as a regression."""

    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, max=1, help="How much worse a metric may become, as a share.")
    ] = 0.005
    time_factor: Annotated[
        float, typer.Option("--time-factor", min=0, help="Warn above this many times the baseline's seconds; 0: never.")
    ] = 3.0
    fail_on_time: Annotated[bool, typer.Option("--fail-on-time", help="Slowness is a regression too.")] = False
    strict: Annotated[
        bool, typer.Option("--strict", help="What of the baseline was not compared is a regression too.")
    ] = False

    fail_on: FailOn = None

    def rules(self) -> GateRules:
        from bench.comparison.gate import GateRules

        masking = masking_to_fail_on(self.fail_on)
        return GateRules(
            self.tolerance, self.time_factor or None, self.fail_on_time, strict=self.strict, masking=masking
        )


@with_groups
def check(
    model: Annotated[list[str] | None, typer.Option("--model", help="As in `bench run`. [default: all]")] = None,
    suite: Annotated[
        list[str] | None, typer.Option("--suite", help="As in `bench run`. [default: cross_norm_quick]")
    ] = None,
    baseline: Annotated[
        Path, typer.Option("--baseline", help="Leaderboard folder, with evidence, to compare with.")
    ] = DEFAULT_LEADERBOARD,
    update: Annotated[
        bool, typer.Option("--update", help="Add the new runs to the baseline, and print what changed.")
    ] = False,
    junit: Annotated[Path | None, typer.Option("--junit", help="JUnit XML file to write.", show_default=False)] = None,
    leaderboard: Annotated[
        Path | None,
        typer.Option("--leaderboard", help="Keep the new runs in this folder. [default: nowhere]", show_default=False),
    ] = None,
    fail_fast: FailFast = False,
    as_json: Json = False,
    *,
    gate: Gate,
    evaluation: Evaluation,
    own: OwnModel,
    place: ExecutorOptions,
) -> None:
    """Evaluate models again and compare them with a baseline, image by image.

    Exit code 0: no regression; 1: a metric is worse by more than the tolerance and not by chance, weights or data
    changed without a word, a new or graver warning, or a baseline that was edited; 2: something could not run.
    """
    from bench.leaderboard.merge import merge_leaderboards
    from bench.leaderboard.table import FILE_NAME, read_leaderboard

    warn_of_broken_cards(evaluation.registry)

    executor, rules, failures = place.choose(evaluation.device), gate.rules(), Failures(fast=fail_fast)
    with ExitStack() as stack:
        folder = leaderboard or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-check-")))
        models, suites = model or _sound(evaluation), suite or ["cross_norm_quick"]
        request = evaluation.request(models, suites, folder, own=own, executor=executor)
        earlier = set(read_leaderboard(folder)["run_id"]) if (folder / FILE_NAME).exists() else set()
        with _written_down(junit, failures, annotate=not as_json):
            verdicts = _evaluate(request, executor, baseline, rules, failures=failures, update=update)
        made = update and (folder / FILE_NAME).exists()
        merged = merge_leaderboards([folder], baseline, but=earlier) if made else []
    _show(verdicts, failures, junit, as_json=as_json)
    tell_failures(failures, sum(bool(one.metrics) for one in verdicts))  # some are of no run
    added = sum(one.added for one in merged)
    if added:
        said = f"baseline: {baseline} has {added} new run{'s' * (added > 1)} now"
        (messages if as_json else output)().print(said, soft_wrap=True)
    if failures.found or (update and any(one.suite == "weights" for one in verdicts)):  # these were not evaluated
        raise typer.Exit(EXIT_FAILED)
    if not update and not all(verdict.passed for verdict in verdicts):
        raise typer.Exit(EXIT_NEGATIVE)


def _sound(evaluation: Evaluation) -> list[str]:
    """All models of the data set but those whose card cannot be read."""
    from bench.catalog.models import DEFAULT_DATASET, list_models

    found = list_models(evaluation.dataset or DEFAULT_DATASET, evaluation.registry)
    return [entry.card.name for entry in found] or ["all"]


@contextmanager
def _written_down(junit: Path | None, failures: Failures, *, annotate: bool) -> Iterator[None]:
    """What ends the command in here goes to GitHub and into the JUnit file too."""
    from bench.cli.output.check_output import announce, write_junit
    from bench.core.files import require_writable

    if junit is not None:
        require_writable(junit)
    try:
        yield
    except Exception as error:
        if not annotate and failures.found:  # standard output is for the JSON document then
            _print_json([], failures)
        errors = [*(one for one in failures.found if one.error is not error), Failure("bench check", "", error)]
        announce([], errors, annotate=annotate)
        if junit is not None:
            write_junit([], junit, errors)
        raise


def _show(verdicts: list[RegressionReport], failures: Failures, junit: Path | None, *, as_json: bool) -> None:
    from bench.cli.output.check_output import announce, show_summary, write_junit

    if as_json:
        _print_json(verdicts, failures)
    else:
        show_summary(verdicts)
    announce(verdicts, failures.found, annotate=not as_json)
    if junit is not None:
        write_junit(verdicts, junit, failures.found)
        (messages if as_json else output)().print(f"junit:    {junit}", soft_wrap=True)


def _print_json(verdicts: list[RegressionReport], failures: Failures) -> None:
    from bench.cli.output.json_output import failure_entries, not_compared_entries, print_json, verdict_entry

    print_json(
        "check", passed=not failures.found and all(verdict.passed for verdict in verdicts),
        verdicts=[verdict_entry(one) for one in verdicts if not one.not_compared],
        not_compared=not_compared_entries(verdicts), failures=failure_entries(failures),
    )  # fmt: skip


def _evaluate(
    request: RunRequest, executor: Executor, baseline: Path, rules: GateRules, *, failures: Failures, update: bool
) -> list[RegressionReport]:
    """Verdicts on all models and suites that can be run, and one on what else the baseline has."""
    from bench.catalog.models import resolve_models
    from bench.catalog.suites import resolve_suites
    from bench.cli.output.run_progress import carry_out
    from bench.comparison.baseline import baseline_rows, comparable_plans
    from bench.comparison.gate import RegressionReport, check_regression, first_verdict, unchecked, weights_remarks
    from bench.runs.fitting import share_programs
    from bench.runs.plan import plan_runs

    if not update and request.leaderboard.resolve() == baseline.resolve():
        raise BenchError(
            "the new runs would be the baseline of the next check; keep them in another folder.", option="leaderboard"
        )
    named = resolve_suites(request.suites, request.suite_path)
    suites, (_, of_models) = [suite.name for suite in named], share_programs(request.programs, named)
    entries = resolve_models(
        request.models, request.dataset, options=request.source, registry=request.registry,
        programs=of_models, attempt=failures.of,
    )  # fmt: skip
    failures.raise_lone(len(entries))
    if not update:
        baseline_rows(baseline)  # that there is one
    looked_at = [(entry.card.dataset, entry.card.id, suite) for entry in entries for suite in suites]
    left = None if update else unchecked(looked_at, baseline, rules)
    verdicts = [] if left is None else [left]
    remarks = {entry.card.name: weights_remarks(entry) for entry in entries}
    verdicts += [RegressionReport(name, "weights", 0.0, found) for name, found in remarks.items() if found]
    sound = [entry for entry in entries if not remarks[entry.card.name]]
    if not sound:
        return verdicts
    of_suites = [path for path in request.programs if path not in of_models]
    plans = plan_runs(replace(request, models=[], entries=sound, source=None, programs=of_suites), failures)
    tell_skipped(failures)
    require_masking_probe(plans, rules.masking)
    if not update:
        plans = comparable_plans(plans, baseline, failures)
    judge = first_verdict if update else check_regression
    take = partial(judge, leaderboard=request.leaderboard, baseline=baseline, rules=rules)
    return verdicts + carry_out(plans, request.leaderboard, executor, failures, take=take, fresh=True, go_on="")
