"""`bench report`: the leaderboard as one static web page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import (
    DEFAULT_LEADERBOARD,
    DataDir,
    Device,
    Download,
    LeaderboardDir,
    OnlyDataset,
    OnlySuite,
    Programs,
    Registry,
    warn_of_broken_cards,
)
from bench.cli.output.rendering import messages, output


def report(
    output_file: Annotated[
        Path, typer.Option("--output", help="The page to write; one file, nothing beside it.")
    ] = Path("report.html"),
    directory: LeaderboardDir = DEFAULT_LEADERBOARD,
    dataset: OnlyDataset = None,
    suite: OnlySuite = None,
    title: Annotated[str, typer.Option("--title", help="The page's title.")] = "RIBench leaderboard",
    saliency: Annotated[
        bool, typer.Option("--saliency/--no-saliency", help="Panels of saliency maps before and after an attack.")
    ] = True,
    images: Annotated[int, typer.Option("--images", max=1000, help="Images a model in the saliency panels.")] = 3,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            help="Where readers find the leaderboard's folder, for links to evidence: https://..., or a path from the "
            "page. [default: where it lies beside or below the page]",
            show_default=False,
        ),
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain/--packed", help="Readable without JavaScript and by grep, or a fifth of the size.")
    ] = False,
    device: Device = "auto",
    data_dir: DataDir = None,
    download: Download = False,
    registry: Registry = None,
    program: Programs = None,
) -> None:
    """Write the leaderboard as one self-contained web page: tables, plots, models, how to repeat each number."""
    from bench.reporting.leaderboard_page import make_report

    warn_of_broken_cards(registry)
    with messages().status("Writing the page"):
        outcome = make_report(
            directory, output_file, title=title, dataset=dataset, suite=suite, images=images if saliency else 0,
            device=device, data_dir=data_dir, download=download, plain=plain, registry=registry, programs=program or (),
            base=base,
        )  # fmt: skip
    for remark in outcome.remarks:
        messages().print(f"note {remark}", soft_wrap=True)
    size = f"{outcome.size / 1024:,.0f} kB"
    output().print(f"{outcome.path}: {outcome.models} models, {outcome.runs} runs, {size}", soft_wrap=True)
