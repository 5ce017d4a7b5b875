"""`bench run`: evaluate models under suites."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.option_groups import Evaluation, ExecutorOptions, OwnModel, with_groups
from bench.cli.options import (
    DEFAULT_LEADERBOARD,
    EXIT_FAILED,
    EXIT_NEGATIVE,
    Compile,
    FailFast,
    FailOn,
    Json,
    LeaderboardDir,
    Models,
    Precision,
    masking_to_fail_on,
    require_masking_probe,
)
from bench.cli.output.rendering import interval, messages, number, output, table, tell_failures, tell_skipped, warn
from bench.core.threat import NORM_LABELS, radius_text
from bench.leaderboard.findings import masking_verdict
from bench.runs.failures import Failures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from bench.leaderboard.metrics import Metric
    from bench.runs.execute import RunOutcome
    from bench.runs.plan import RunPlan


SaveAdversarial = Annotated[
    bool,
    typer.Option(
        "--save-adversarial",
        help="Keep the smallest adversarial image found per example and norm; `bench show` draws them.",
    ),
]

ExpectClean = Annotated[
    float | None,
    typer.Option(
        "--expect-clean",
        help="Clean accuracy that the model is known to have, e.g. 0.83: refuse it where 500 images say otherwise, as "
        "when its normalisation was forgotten.",
    ),
]


@with_groups
def run(
    model: Models,
    suite: Annotated[
        list[str], typer.Option("--suite", help="Suite: name, wildcard, `all`, or TOML file. Repeatable.")
    ],
    precision: Precision = "float32",
    compiled: Compile = False,
    leaderboard: LeaderboardDir = DEFAULT_LEADERBOARD,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do not resume an unfinished run; start a new one.")] = False,
    save_adversarial: SaveAdversarial = False,
    expect_clean: ExpectClean = None,
    fail_fast: FailFast = False,
    fail_on: FailOn = None,
    as_json: Json = False,
    *,
    evaluation: Evaluation,
    own: OwnModel,
    place: ExecutorOptions,
) -> None:
    """Evaluate models under suites, with evidence for every image.

    A run that fails does not keep the others from being done; all that failed are listed at the end, with exit code 2.
    """
    from bench.cli.output.run_progress import carry_out
    from bench.runs.plan import plan_runs

    fatal, failures = masking_to_fail_on(fail_on), Failures(fast=fail_fast)
    executor = place.choose(evaluation.device)
    request = evaluation.request(
        model, suite, leaderboard, own=own, executor=executor, precision=precision, save_adversarial=save_adversarial,
        expect_clean=expect_clean, compile=compiled,
    )  # fmt: skip
    outcomes: list[RunOutcome] = []

    def take(outcome: RunOutcome) -> None:
        outcomes.append(outcome)
        if not as_json:
            _print(outcome, leaderboard)

    go_on = f"run the same command again{' without --fresh' if fresh else ''} to go on"
    with _in_json(outcomes, failures, wanted=as_json):
        with messages().status("Checking models, data and suites"):
            plans = plan_runs(request, failures)
        tell_skipped(failures)
        warn(_displaced(plans, leaderboard))
        require_masking_probe(plans, fatal)
        carry_out(plans, leaderboard, executor, failures, take=take, fresh=fresh, go_on=go_on)
    tell_failures(failures, len(outcomes))
    if failures.found:
        raise typer.Exit(EXIT_FAILED)
    _fail_on(outcomes, fatal)


def _displaced(plans: Sequence[RunPlan], leaderboard: Path) -> list[str]:
    """A line for each model named by its source of whose name the leaderboard shows a net of other weights so far."""
    from bench.leaderboard.rows import short_digest
    from bench.leaderboard.table import FILE_NAME, read_leaderboard

    own = {plan.entry.card.name: plan.entry.card for plan in plans if plan.entry.build is not None}
    if not own or not (leaderboard / FILE_NAME).is_file():
        return []
    rows = read_leaderboard(leaderboard).sort_values("finished_at", kind="stable")
    shown = dict(zip(rows["dataset"] + "/" + rows["model"], rows["model_sha256"], strict=True))
    return [
        f"{name} takes the place of a net of other weights in {leaderboard}; --model-id gives it a name of its own"
        for name, card in own.items()
        if shown.get(name, digest := short_digest(card.weights.sha256)) != digest
    ]


@contextmanager
def _in_json(outcomes: Sequence[RunOutcome], failures: Failures, *, wanted: bool) -> Iterator[None]:
    """One document at the end, where it is wanted; also where the failure of a run, the only one say, is that end."""
    from bench.cli.output.json_output import failure_entries, print_json, run_entry

    try:
        yield
    except Exception:
        if wanted and failures.found:
            print_json("run", runs=[run_entry(one) for one in outcomes], failures=failure_entries(failures))
        raise
    if wanted:
        print_json("run", runs=[run_entry(one) for one in outcomes], failures=failure_entries(failures))


def _fail_on(outcomes: Sequence[RunOutcome], fatal: Sequence[str]) -> None:
    """End with exit code 1 where a run's verdict on gradient masking is one of `fatal`."""
    masked = [outcome for outcome in outcomes if masking_verdict(outcome.findings) in fatal]
    for outcome in masked:
        said = f"{masking_verdict(outcome.findings)}: {outcome.plan.entry.card.name} under {outcome.plan.suite.name}"
        messages().print(said, style="red", soft_wrap=True)
    if masked:
        raise typer.Exit(EXIT_NEGATIVE)


def _print(outcome: RunOutcome, leaderboard: Path) -> None:
    from bench.leaderboard.labels import balls

    plan = outcome.plan
    suite_name = f"{plan.suite.name} (version {plan.suite.file.version})"
    title = f"\n{plan.entry.card.name} under {suite_name}, {plan.examples} images"
    if any(metric.key.metric == "union_accuracy" for metric in outcome.metrics):
        title += f", union of {balls(plan.suite.file.reference(plan.dataset.name))}"
    output().print(title, style="bold", soft_wrap=True)
    output().print(outcome_table(outcome))
    for finding in outcome.findings:
        said = f"{finding.evidence}; {finding.advice}"
        if masking_verdict([finding]) == "no sign":  # what was counted stands in the manifest and on the page
            said = finding.evidence.partition(":")[0]
        messages().print(f"{finding.severity} {finding.id}: {said}", style="yellow")
    counters, workers = outcome.counters, outcome.workers
    resumed = f", {outcome.resumed_units} units resumed" if outcome.resumed_units else ""
    work = f" ({outcome.seconds:.1f} s of work in {workers} processes)" if workers > 1 else ""
    clock = outcome.elapsed if work else outcome.seconds
    output().print(
        f"{clock:.1f} s{work}, {counters.get('gradient_evaluations', 0):,} gradients, "
        f"{counters.get('claims', 0):,} adversarial examples claimed, "
        f"{counters.get('rejected_claims', 0)} rejected{resumed}"
    )
    if "saved_images" in counters:
        output().print(
            f"{counters['saved_images']:,} adversarial images kept, {counters['saved_images_rounded']:,} of them still "
            "fool within their radius after rounding to 1/255; `bench show` draws them"
        )
    output().print(f"leaderboard: {leaderboard / 'leaderboard.csv'}", soft_wrap=True)
    output().print(f"evidence:    {outcome.folder}", soft_wrap=True)


def outcome_table(outcome: RunOutcome) -> Table:
    """Every metric with its 95 % interval; shares in per cent, anything else as it is."""
    from bench.leaderboard.controls import MARK, beaten_metrics
    from bench.leaderboard.labels import in_words

    plan, behind = outcome.plan, beaten_metrics(outcome.metrics)
    several = len({metric.key.attack for metric in outcome.metrics if metric.key.attack}) > 1
    all_shares = all(metric.unit == "share" for metric in outcome.metrics)
    most = max((metric.n_examples for metric in outcome.metrics), default=0)
    rows = []
    for metric in outcome.metrics:
        key = metric.key
        what, norm = in_words(key).replace("/", ", "), NORM_LABELS.get(key.norm, "")
        if key.metric == "union_accuracy":
            what, norm = "worst over all norms", ""
        what += f" {MARK}" if key in behind else ""
        what += f" (n {metric.n_examples})" if metric.n_examples < most else ""
        radius = "" if key.eps is None else plan.suite.file.fractions.get(repr(key.eps), radius_text(key.eps))
        attack = [key.attack] if several else []
        lack, *values = _read(metric, all_shares)
        rows.append([lack + what, *attack, norm, radius, *values])
    value = "%" if all_shares else "value"
    columns = ["metric", *(["attack"] if several else []), "norm", "radius", value, "95 % interval"]
    return table(columns, rows, right=("radius", value))


def _read(metric: Metric, all_shares: bool) -> tuple[str, str, str]:
    """What goes before its name where it is read from 1, its value, and its interval."""
    from bench.leaderboard.labels import FROM_ONE, read_from_one, small_number

    if read_from_one([metric.value], metric.direction, metric.unit):
        value, *ends = (small_number(1 - one) for one in (metric.value, metric.ci_high, metric.ci_low))
        return FROM_ONE, value, "-" if metric.ci_low != metric.ci_low else f"[{', '.join(ends)}]"
    share = metric.unit == "share"
    unit = " %" if share and not all_shares else ""
    return "", number(metric.value, percent=share) + unit, interval(metric.ci_low, metric.ci_high, percent=share) + unit
