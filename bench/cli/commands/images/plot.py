"""`bench plot`: curves and Pareto fronts of the leaderboard, for a paper."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import DEFAULT_LEADERBOARD, LeaderboardDir, OnlyDataset, OnlySuite
from bench.cli.output.rendering import output, warn
from bench.core.errors import BenchError


class Kind(StrEnum):
    """What is drawn."""

    robustness = "robustness"
    stability = "stability"
    pareto = "pareto"


def plot(
    kind: Annotated[
        Kind, typer.Argument(help="Curves of robust accuracy or of stability over the radius, or a Pareto front.")
    ] = Kind.robustness,
    dataset: OnlyDataset = None,
    suite: OnlySuite = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="Only these models; wildcards. Repeatable.")
    ] = None,
    table: Annotated[
        str, typer.Option("--table", help="Only the table whose title has this, e.g. '500 images' or 'seed 1'.")
    ] = "",
    columns: Annotated[
        str, typer.Option("--columns", help="Of the Pareto front: two columns, across and up.")
    ] = "clean, union",
    output_file: Annotated[Path, typer.Option("--output", help="The picture to write: .pdf, .svg or .png.")] = Path(
        "plot.pdf"
    ),
    width: Annotated[
        float, typer.Option("--width", min=1, max=40, help="In inches; 3.25 is a column of most two-column papers.")
    ] = 6.75,
    font: Annotated[str, typer.Option("--font", help="Family: serif, sans-serif, or a font by name.")] = "serif",
    font_size: Annotated[float, typer.Option("--font-size", min=3, max=40, help="In points.")] = 8.0,
    directory: LeaderboardDir = DEFAULT_LEADERBOARD,
) -> None:
    """Draw a table of the leaderboard: curves with 95 % bands, a panel a norm, a line a model; or a Pareto front."""
    from bench.reporting.plots import draw_plot

    names = [name.strip() for name in columns.split(",")]
    if len(names) != 2:
        raise BenchError(f"--columns {columns!r} is not two columns; write it as 'clean, union'.")
    title, doubts = draw_plot(
        kind.value, directory, output_file, dataset=dataset, suite=suite, models=model or [],
        table=table, columns=(names[0], names[1]), width=width, font=font, font_size=font_size,
    )  # fmt: skip
    warn(doubts)
    output().print(f"{output_file}: {title}", soft_wrap=True)
