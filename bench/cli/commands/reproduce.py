"""`bench reproduce`: repeat a paper's study and judge its claims."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.interrupts import keeping
from bench.cli.option_groups import ExecutorOptions, at_work, with_groups
from bench.cli.options import (
    DEFAULT_LEADERBOARD,
    EXIT_FAILED,
    BatchSize,
    DataDir,
    Device,
    Download,
    LeaderboardDir,
    Registry,
    parse_batch_size,
    seed_option,
    warn_of_broken_cards,
)
from bench.cli.output.rendering import messages, output, table, tell_failures
from bench.runs.failures import Failures

if TYPE_CHECKING:
    from bench.studies.plan import StudyPlan, StudyRequest
    from bench.studies.reproduce import StudyOutcome


StudyDataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="ir and bridging: fashion_mnist, mnist, cifar10; lga: fashion_mnist, cifar10, imagenet100. "
        "[default: fashion_mnist]",
    ),
]
StudyScale = Annotated[
    str,
    typer.Option(
        "--scale",
        help="quick (from shipped models); standard (on fashion_mnist, lga: an hour, bridging: over a day); on a "
        "paper's own data set (--dataset) reduced (two cores, half a day) and paper (its nets, epochs and seeds, for "
        "a GPU).",
    ),
]


@with_groups
def reproduce(
    study: Annotated[str, typer.Argument(help="ir, bridging, lga, explanations, or a study's TOML file.")],
    dataset: StudyDataset = None,
    scale: StudyScale = "quick",
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Folder of the outcome. [default: LEADERBOARD/studies/STUDY-SCALE(-seedN)]"),
    ] = None,
    plan_only: Annotated[bool, typer.Option("--plan", help="Show what would be done, and stop.")] = False,
    train: Annotated[
        bool, typer.Option("--train", help="Train the study's models that the registry and the leaderboard lack.")
    ] = False,
    seed: Annotated[int, seed_option("Keys all randomness of the runs.")] = 0,
    device: Device = "auto",
    batch_size: BatchSize = "auto",
    leaderboard: LeaderboardDir = DEFAULT_LEADERBOARD,
    data_dir: DataDir = None,
    download: Download = False,
    registry: Registry = None,
    *,
    place: ExecutorOptions,
) -> None:
    """Repeat a paper's study: run what is missing, then judge its claims, with tables, figures and verdict.md."""
    from bench.cli.output.run_progress import RunProgress
    from bench.studies.plan import StudyRequest, plan_study
    from bench.studies.reproduce import reproduce as carry_out
    from bench.studies.study import find_study

    warn_of_broken_cards(registry)
    found = find_study(study, dataset)
    folder = output or leaderboard / "studies" / f"{found.name}-{scale}{f'-seed{seed}' if seed else ''}"
    executor, failures = place.choose(device), Failures(fast=False)
    request = StudyRequest(
        study=found, scale=scale, output=folder, leaderboard=leaderboard, seed=seed, device=device, data_dir=data_dir,
        download=download, registry=registry, batch_size=parse_batch_size(batch_size), train=train, executor=executor,
        workers=place.workers if place.executor == "local" else None,
    )  # fmt: skip
    with messages().status("Planning"):
        plan = plan_study(request)
    _print_plan(request, plan)
    if plan_only:
        return
    with keeping("finished steps are kept"), at_work(executor), RunProgress(messages()) as progress:
        outcome = carry_out(request, plan, progress.watch, watch_training=progress.watch_training, failures=failures)
    _print_outcome(outcome)
    tell_failures(failures, outcome.runs)
    if failures.found:
        raise typer.Exit(EXIT_FAILED)


def _print_plan(request: StudyRequest, plan: StudyPlan) -> None:
    scale = request.study.scale(request.scale)
    steps = [(step.kind, step.name, "have" if step.done else "to do", _time(step.seconds)) for step in plan.steps]
    later = [(step.kind, step.name, "to do with --train", _time(step.seconds)) for step in plan.untrained]
    output().print(table(["step", "what", "state", "time"], [*steps, *later], right=("time",)))
    if request.study.experiments:
        rows = []
        for experiment in request.study.experiments:
            of_it = plan.of(experiment, scale.prefix)
            left = sum(not step.done for step in of_it)
            state = f"to do: {left} of {len(of_it)}" if left else "done" if of_it else "not at this scale"
            rows.append([experiment.what, state, _time(plan.time_of(of_it))])
        output().print(table(["table or figure of the paper", "state", "time"], rows, right=("time",)))
    shown = {step.model for step in plan.untrained}
    for reason in plan.left_out:
        if reason.split(":")[0].removeprefix("model ") not in shown:
            output().print(f"left out: {reason}", soft_wrap=True)
    if scale.note:
        output().print(scale.note, soft_wrap=True)
    output().print(f"about {_time(plan.seconds)} to go", soft_wrap=True)
    if plan.untrained:
        more = plan.seconds + plan.time_of(plan.untrained)
        output().print(f"with --train about {_time(more)}", soft_wrap=True)


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.1f} minutes"


def _print_outcome(outcome: StudyOutcome) -> None:
    from bench.studies.report import effect_text

    rows = []
    for one in outcome.judgements:
        interval = "" if one.low is None else f"[{effect_text(one.low)}, {effect_text(one.high)}]"
        rows.append([one.claim.id, one.verdict, effect_text(one.effect), interval])
    output().print(table(["claim", "verdict", "effect", "95 % interval"], rows, right=("effect",)))
    output().print(f"planned {_time(outcome.planned_seconds)}, took {_time(outcome.seconds)}", soft_wrap=True)
    output().print(f"verdict: {outcome.folder / 'verdict.md'}", soft_wrap=True)
