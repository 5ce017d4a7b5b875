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
BatchSize = Annotated[
    str,
    typer.Option(
        "--batch-size",
        help="Images attacked at once: a number, or auto, by device and free memory. Halved where memory runs out; "
        "verdicts do not depend on it.",
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        help="Of the search for adversarial examples: float32, tf32 or bfloat16. Verified in float32 whatever it is.",
    ),
]
Registry = Annotated[
    Path | None, typer.Option("--registry", help="Folder of models, looked in first; BENCH_REGISTRY does the same.")
]
Program = Annotated[
    Path | None,
    typer.Option("--program", help="The file that a card's section `program` needs; running it is your decision."),
]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", help="State dict of a model named by its source: .safetensors, or torch.save's."),
]
TrustWeights = Annotated[
    bool,
    typer.Option("--trust-weights", help="Unpickle whole objects in --weights too; that runs any code the file names."),
]
Mean = Annotated[
    str | None, typer.Option("--mean", help="Of pixels in [0, 1], per channel: 0.5,0.5,0.5; `none` where inside.")
]
Std = Annotated[str | None, typer.Option("--std", help="Of pixels in [0, 1], per channel: 0.5,0.5,0.5.")]
InputSize = Annotated[int | None, typer.Option("--input-size", help="Side that images are resized to for the net.")]
Classes = Annotated[
    str | None, typer.Option("--classes", help="The net's outputs for the data set's classes, in order: 0,217,482.")
]
LabelMap = Annotated[
    Path | None,
    typer.Option(
        "--label-map",
        help='JSON file {"class of the data set": output of the net}; for imagenet100 also the name `imagenet`.',
    ),
]
NumClasses = Annotated[int | None, typer.Option("--num-classes", help="How many outputs the net has.")]
ModelId = Annotated[str | None, typer.Option("--model-id", help="What the model is called in the leaderboard.")]


def parse_numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """`0.5,0.5` as numbers; None stays, `none` is no numbers at all."""
    from bench.core.errors import BenchError

    if text is None:
        return None
    if text == "none":
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise BenchError(f"{option} {text!r} is not a list of numbers; write them as 0.5,0.5,0.5.") from error


def parse_batch_size(text: str) -> int | None:
    """A number of images; None for `auto`."""
    from bench.core.errors import BenchError

    if text == "auto":
        return None
    if not (text.isdecimal() and 0 < int(text) < 1 << 31):
        raise BenchError(f"--batch-size {text} is not a number of images; use 1 or more, or auto.")
    return int(text)


def parse_classes(text: str | None) -> tuple[int, ...] | None:
    """`3,1,4` as whole numbers from 0."""
    from bench.core.errors import BenchError

    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 10 for part in parts):
        raise BenchError(f"--classes {text!r} is not a list of outputs; write them as 0,217,482.")
    return tuple(int(part) for part in parts)
