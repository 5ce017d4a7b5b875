"""`bench compare`: two models on the same images."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import DEFAULT_LEADERBOARD, DataDir, Json, LeaderboardDir, OnlyDataset, OnlySuite
from bench.core.errors import BenchError

if TYPE_CHECKING:
    from bench.cli.output.comparison_formats import Shape
    from bench.comparison.compare import SuiteComparison

SHOWN_FLIPS = 12


class Format(StrEnum):
    """What a comparison is printed as."""

    table = "table"
    latex = "latex"


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
    from bench.cli.output.comparison_formats import Shape, as_latex, with_metrics
    from bench.cli.output.rendering import messages, output, warn
    from bench.comparison.compare import compare_models

    if as_json and output_format is Format.latex:
        raise BenchError(f"--json or --format {output_format}, not both.")
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
            _print(one, shape, flipped=flipped)
    warn([] if as_json else skipped)
    if images is not None:
        from bench.reporting.flip_panel import draw_flips

        draw_flips(found, (first, second), images, leaderboard=leaderboard, data_dir=data_dir)
        (messages if as_json or output_format is Format.latex else output)().print(f"images: {images}", soft_wrap=True)


def _print(found: SuiteComparison, shape: Shape, *, flipped: bool) -> None:
    from bench.cli.output.comparison_formats import as_table, short_label
    from bench.cli.output.rendering import output, warn

    made = as_table(found, shape)
    output().print(f"\n{shape.second} minus {shape.first}: {found.title}", style="bold", soft_wrap=True)
    warn(doubt for doubt in found.doubts if doubt)
    output().print(made)
    if found.unpaired:
        names = ", ".join(short_label(found, key) for key in found.unpaired)
        output().print(f"without evidence by example, not compared: {names}", soft_wrap=True)
    _print_flips(found, shape, every=flipped)


def _print_flips(found: SuiteComparison, shape: Shape, *, every: bool) -> None:
    from bench.cli.output.comparison_formats import short_label
    from bench.cli.output.rendering import output

    for one in found.comparisons:
        for ids, winner in ((one.gained, shape.second), (one.lost, shape.first)):
            if not ids or not (every or one.key.metric in ("clean_accuracy", "union_accuracy")):
                continue
            shown = ids if every else ids[:SHOWN_FLIPS]
            more = f" and {len(ids) - len(shown)} more (--flipped)" if len(ids) > len(shown) else ""
            listed = ", ".join(map(str, shown))
            output().print(f"{short_label(found, one.key)}, only {winner}: {listed}{more}", soft_wrap=True)
