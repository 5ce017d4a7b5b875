"""`bench reproduce`: repeat a paper's study and judge its claims."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.interrupts import keeping
from bench.cli.option_groups import ExecutorOptions, at_work, with_groups
from bench.cli.options import (
    DEFAULT_LEADERBOARD,
    BatchSize,
    DataDir,
    Device,
    Download,
    LeaderboardDir,
    Registry,
    parse_batch_size,
    seed_option,
)

if TYPE_CHECKING:
    from bench.studies.reproduce import StudyOutcome


@with_groups
def reproduce(
    study: Annotated[str, typer.Argument(help="ir, bridging, lga, or a study's TOML file.")],
    scale: Annotated[
        str, typer.Option("--scale", help="A scale that the study has; the shipped ones have quick and standard.")
    ] = "quick",
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder of the outcome. [default: LEADERBOARD/studies/STUDY-SCALE]")
    ] = None,
    plan_only: Annotated[bool, typer.Option("--plan", help="Show what would be done, and stop.")] = False,
    train: Annotated[
        bool, typer.Option("--train", help="Train the study's models that the registry lacks, from their recipes.")
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
    from bench.cli.output.rendering import messages, table
    from bench.cli.output.rendering import output as standard_output
    from bench.cli.output.run_progress import RunProgress
    from bench.studies.plan import StudyRequest, plan_study
    from bench.studies.reproduce import reproduce as carry_out
    from bench.studies.study import find_study

    found = find_study(study)
    folder = output or leaderboard / "studies" / f"{found.name}-{scale}"
    executor = place.choose(device)
    request = StudyRequest(
        study=found, scale=scale, output=folder, leaderboard=leaderboard, seed=seed, device=device, data_dir=data_dir,
        download=download, registry=registry, batch_size=parse_batch_size(batch_size), train=train, executor=executor,
    )  # fmt: skip
    with messages().status("Planning"):
        plan = plan_study(request)
    steps = [(step.kind, step.name, "have" if step.done else f"{step.seconds / 60:.1f}") for step in plan.steps]
    standard_output().print(table(["step", "what", "minutes"], steps, right=("minutes",)))
    for reason in plan.left_out:
        standard_output().print(f"left out: {reason}", soft_wrap=True)
    standard_output().print(f"about {plan.seconds / 60:.1f} minutes to go", soft_wrap=True)
    if plan_only:
        return
    with keeping("finished steps are kept"), at_work(executor), RunProgress(messages()) as progress:
        outcome = carry_out(request, plan, progress.watch)
    _print_outcome(outcome)


def _print_outcome(outcome: StudyOutcome) -> None:
    from bench.cli.output.rendering import output, table

    rows = [
        [
            judgement.claim.id,
            judgement.verdict,
            "" if judgement.effect is None else f"{judgement.effect:+.4f}",
            "" if judgement.low is None else f"[{judgement.low:+.4f}, {judgement.high:+.4f}]",
        ]
        for judgement in outcome.judgements
    ]
    output().print(table(["claim", "verdict", "effect", "95 % interval"], rows, right=("effect",)))
    output().print(
        f"planned {outcome.planned_seconds / 60:.1f} minutes, took {outcome.seconds / 60:.1f}", soft_wrap=True
    )
    output().print(f"verdict: {outcome.folder / 'verdict.md'}", soft_wrap=True)
