"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_LEADERBOARD = Path("leaderboard")

LeaderboardDir = Annotated[
    Path, typer.Option("--leaderboard", help="Folder of leaderboard.csv and runs/.", envvar="BENCH_LEADERBOARD")
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder to look for data sets in first; BENCH_DATA_DIR does the same.")
]
Download = Annotated[bool, typer.Option("--download", help="Let torchvision fetch a data set that is nowhere.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
