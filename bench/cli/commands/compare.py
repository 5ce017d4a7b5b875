"""`bench compare`: two models on the same images."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import DEFAULT_LEADERBOARD, DataDir, Json, LeaderboardDir, OnlyDataset, OnlySuite
from bench.cli.output.rendering import messages, output, warn
from bench.core.errors import BenchError

Format = StrEnum("Format", "table latex")


def compare(
    first: Annotated[str, typer.Argument(help="A model of the leaderboard, e.g. standard or mnist/standard.")],
    second: Annotated[str, typer.Argument(help="Another one.")],
    suite: OnlySuite = None,
    dataset: OnlyDataset = None,
    flipped: Annotated[bool, typer.Option("--flipped", help="List every example whose verdict flipped.")] = False,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Some of the flipped images: .png, .svg or .pdf.", show_default=False),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="Show only these, as the table names them; wildcards. Repeatable."),
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", help="Only these, e.g. 'standard, at_linf, difference'.")
    ] = None,
    intervals: Annotated[
        bool, typer.Option("--intervals/--no-intervals", help="The 95 % interval of the difference.")
    ] = True,
    output_format: Annotated[Format, typer.Option("--format", help="How to print it.")] = Format.table,
    leaderboard: LeaderboardDir = DEFAULT_LEADERBOARD,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Compare two models example by example: McNemar's exact test for shares, all signs or Student's t for means."""
    from bench.cli.output.comparison_formats import Shape, as_latex, print_comparison, with_metrics
    from bench.comparison.compare import compare_models

    if as_json and output_format is Format.latex:
        raise BenchError(f"--json or --format {output_format}, not both.")
    _require_picture(images)
    shape = Shape(first, second, [name.strip() for name in columns.split(",")] if columns else [], intervals)
    found, skipped = compare_models(first, second, leaderboard, dataset=dataset, suite=suite)
    shown = with_metrics(found, metric) if metric else found
    if as_json:
        from bench.cli.output.json_output import comparison_entry, print_json

        entries = [comparison_entry(one) for one in shown]
        print_json("compare", first=first, second=second, comparisons=entries, skipped=skipped)
    elif output_format is Format.latex:
        typer.echo("\n".join(as_latex(one, shape) for one in shown), nl=False)
    else:
        for one in shown:
            print_comparison(one, shape, flipped=flipped)
    warn([] if as_json else skipped)
    if images is not None:
        from bench.reporting.flip_panel import draw_flips

        draw_flips(found, (first, second), images, leaderboard=leaderboard, data_dir=data_dir)
        (messages if as_json or output_format is Format.latex else output)().print(f"images: {images}", soft_wrap=True)


def _require_picture(path: Path | None) -> None:
    """Raise BenchError before anything is printed where the picture that is asked for cannot be written."""
    if path is not None:
        from bench.reporting.figures import require_picture

        require_picture(path, "images")
