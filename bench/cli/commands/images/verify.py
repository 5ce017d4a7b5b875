"""`bench verify`: adversarial images that others made, checked, and entered into a model's rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.option_groups import Evaluation, ExecutorOptions, OwnModel, with_groups
from bench.cli.options import DEFAULT_LEADERBOARD, LeaderboardDir
from bench.cli.output.rendering import messages, number, output
from bench.core.errors import BenchError

if TYPE_CHECKING:
    from bench.runs.external import ExternalOutcome


@with_groups
def verify(
    file: Annotated[
        Path, typer.Argument(help="Archive (.npz) of `images` and `ids`; docs/howto/adversarial-images.md.")
    ],
    model: Annotated[str, typer.Option("--model", help="The model that the images are to fool, as for `bench run`.")],
    suite: Annotated[str, typer.Option("--suite", help="Suite whose radii count: name or TOML file.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Whose images they are. [default: the file's name]")
    ] = None,
    leaderboard: LeaderboardDir = DEFAULT_LEADERBOARD,
    *,
    evaluation: Evaluation,
    own: OwnModel,
) -> None:
    """Check others' adversarial images, and lower a model's rows by those that hold.

    Each image is measured in float64 and judged by the float32 model. A finished run of the model under the suite must
    be there; the images are added to it as attack `external:NAME`, and its numbers can only fall.
    """
    from bench.core.names import require_safe_name, safe_name
    from bench.runs.external import enter_images
    from bench.runs.plan import plan_runs

    name = safe_name(file.stem) if name is None else require_safe_name(name, "name")
    executor = ExecutorOptions().choose(evaluation.device)
    request = evaluation.request([model], [suite], leaderboard, own=own, executor=executor)
    with messages().status("Judging the images"):
        plans = plan_runs(request)
        if len(plans) != 1:
            raise BenchError(f"these are {len(plans)} runs; name one model and one suite.")
        outcome = enter_images(plans[0], file, name, leaderboard)
    _print(outcome)


def _print(outcome: ExternalOutcome) -> None:
    from bench.leaderboard.labels import full_label

    out = output()
    out.print(
        f"{outcome.held} of {outcome.images} images fool the model inside a ball of the suite, {outcome.rounded} of "
        "them also after rounding to 1/255", soft_wrap=True,
    )  # fmt: skip
    for reason, count in outcome.refused.items():
        out.print(f"  {count} not counted: {reason}", soft_wrap=True)
    for metric, before in outcome.lowered:
        share = metric.unit == "share"
        fall = f"{number(before, percent=share)} -> {number(metric.value, percent=share)}{' %' if share else ''}"
        out.print(f"  {full_label(metric.key)}: {fall}", soft_wrap=True)
    base = outcome.base
    out.print(f"held against {base.run_id}, {base.config.examples} images", soft_wrap=True)
    if not outcome.lowered:
        why = "these images had been broken already" if outcome.held else "none of the images counts"
        out.print(f"no number fell: {why}", soft_wrap=True)
    if outcome.folder is not None:
        out.print(f"evidence:    {outcome.folder}", soft_wrap=True)
