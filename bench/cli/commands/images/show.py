"""`bench show`: adversarial images that a run has kept, beside the clean ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import DEFAULT_LEADERBOARD, DataDir, Download, LeaderboardDir, parse_positions
from bench.cli.output.rendering import output


def show(
    run: Annotated[str, typer.Argument(help="Id of a run, or its folder.")],
    worst: Annotated[int, typer.Option("--worst", min=1, help="How many images a norm, the nearest ones first.")] = 5,
    image: Annotated[
        list[str] | None, typer.Option("--image", help="Positions of images in the test split, e.g. 0,1,2. Repeatable.")
    ] = None,
    output_file: Annotated[
        Path, typer.Option("--output", help="The picture to write, .png or .svg; its folder must be there.")
    ] = Path("adversarial.png"),
    leaderboard: LeaderboardDir = DEFAULT_LEADERBOARD,
    data_dir: DataDir = None,
    download: Download = False,
) -> None:
    """Draw adversarial images that `bench run --save-adversarial` has kept: clean, adversarial, difference."""
    from bench.reporting.adversarial import adversarial_rows, draw_rows, find_run
    from bench.reporting.figures import require_picture

    kind = require_picture(output_file)
    folder = find_run(run, leaderboard)
    ids = parse_positions(image or [])
    manifest, rows = adversarial_rows(folder, worst=worst, ids=ids, data_dir=data_dir, download=download)
    title = f"{manifest.config.model} under {manifest.config.suite}"
    draw_rows(rows, title, output_file, kind)
    output().print(f"{title}, {manifest.config.examples} images", style="bold", soft_wrap=True)
    for row in rows:
        output().print(f"  image {row.example_id}: {row.said}", soft_wrap=True)
    output().print(f"picture: {output_file}", soft_wrap=True)
