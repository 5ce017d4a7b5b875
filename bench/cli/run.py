"""`bench run`: evaluate models under suites."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import DEFAULT_LEADERBOARD, DataDir, Device, Download, LeaderboardDir

if TYPE_CHECKING:
    from rich.table import Table

    from bench.orchestration import RunOutcome


def run(
    model: Annotated[
        list[str], typer.Option("--model", help="Model: name, wildcard, `all`, or folder with a card. Repeatable.")
    ],
    suite: Annotated[
        list[str], typer.Option("--suite", help="Suite: name, wildcard, `all`, or TOML file. Repeatable.")
    ],
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Data set of the models. [default: fashion_mnist]")
    ] = None,
    examples: Annotated[int | None, typer.Option("--examples", help="How many images. [default: the suite's]")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Keys all random starts, together with the example ids.")] = 0,
    device: Device = "auto",
    batch_size: Annotated[
        int, typer.Option("--batch-size", help="Images attacked at once; verdicts do not depend on it.")
    ] = 256,
    leaderboard: LeaderboardDir = DEFAULT_LEADERBOARD,
    data_dir: DataDir = None,
    download: Download = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do not resume an unfinished run; start a new one.")] = False,
) -> None:
    """Evaluate models under suites, with evidence for every image."""
    from bench.cli.rendering import messages, output
    from bench.cli.run_progress import RunProgress
    from bench.orchestration import RunRequest, execute, plan_runs

    request = RunRequest(
        model, suite, leaderboard, dataset, examples, seed, device, batch_size, data_dir, download, fresh
    )  # fmt: skip
    with messages().status("Checking models, data and suites"):
        plans = plan_runs(request)
    for position, plan in enumerate(plans, start=1):
        count = f"[{position}/{len(plans)}] " if len(plans) > 1 else ""
        # one display a run, closed before its table is printed, so that a piped standard output gets the tables alone
        with RunProgress(messages()) as progress:
            outcome = execute(plan, leaderboard, fresh=fresh, observer=progress.watch(plan, count))
        suite_name = f"{plan.suite.name} (version {plan.suite.file.version})"
        output().print(f"\n[bold]{plan.entry.card.name} under {suite_name}, {plan.examples} images[/]", soft_wrap=True)
        output().print(outcome_table(outcome))
        _print_remarks(outcome, leaderboard)


def outcome_table(outcome: RunOutcome) -> Table:
    """Clean accuracy, robust accuracy per norm and radius, union; with 95 % intervals."""
    from bench.cli.rendering import interval, is_share, percent, table
    from bench.core.threat import NORM_LABELS

    plan = outcome.plan
    several = len({metric.attack for metric in outcome.metrics if metric.attack}) > 1
    rows = []
    for metric in outcome.metrics:
        name = metric.metric.replace("_", " ")
        if metric.metric == "union_accuracy":
            name = "worst over all norms"
        label = NORM_LABELS.get(metric.norm, "")
        if metric.metric == "union_accuracy":
            label = _reference(plan.suite.file.parameters, plan.dataset.name)
        radius = "" if metric.eps is None else f"{metric.eps:.4g}"
        attack = [metric.attack] if several else []
        if is_share(metric.metric):
            value, limits = percent(metric.value), interval(metric.ci_low, metric.ci_high)
        else:
            value, limits = f"{metric.value:.3f}", f"[{metric.ci_low:.3f}, {metric.ci_high:.3f}] (no %)"
        rows.append([name, *attack, label, radius, value, limits])
    columns = ["metric", *(["attack"] if several else []), "norm", "radius", "%", "95 % interval"]
    return table(columns, rows, right=("radius", "%"))


def _reference(parameters: dict[str, object], dataset: str) -> str:
    from bench.core.threat import NORM_LABELS

    datasets = parameters.get("datasets")
    reference = datasets.get(dataset, {}).get("reference", {}) if isinstance(datasets, dict) else {}
    return ", ".join(f"{NORM_LABELS[norm]} {reference[norm]:.4g}" for norm in NORM_LABELS if norm in reference)


def _print_remarks(outcome: RunOutcome, leaderboard: Path) -> None:
    from bench.cli.rendering import messages, output

    for finding in outcome.findings:
        messages().print(f"[yellow]{finding.severity}[/] {finding.id}: {finding.evidence}; {finding.advice}")
    counters = outcome.counters
    resumed = f", {outcome.resumed_units} units resumed" if outcome.resumed_units else ""
    output().print(
        f"{outcome.seconds:.1f} s, {counters.get('gradient_evaluations', 0):,} gradients, "
        f"{counters.get('claims', 0):,} adversarial examples claimed, "
        f"{counters.get('rejected_claims', 0)} rejected{resumed}"
    )
    output().print(f"leaderboard: {leaderboard / 'leaderboard.csv'}", soft_wrap=True)
    output().print(f"evidence:    {outcome.folder}", soft_wrap=True)
