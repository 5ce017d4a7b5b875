"""The options of a model that is named by its source and not by the registry."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bench.catalog.sources import SourceOptions

_option = partial(typer.Option, rich_help_panel="A model of your own (docs/howto/bring-your-own-model.md)")


@dataclass(frozen=True)
class OwnModel:
    """How a model that is named by its source is to be taken."""

    weights: Annotated[
        Path | None,
        _option("--weights", help="State dict of a model named by its source: .safetensors, or torch.save's."),
    ] = None
    trust_weights: Annotated[
        bool,
        _option("--trust-weights", help="Unpickle whole objects in --weights too; that runs any code the file names."),
    ] = False
    mean: Annotated[
        str | None, _option("--mean", help="Of pixels in [0, 1], per channel: 0.5,0.5,0.5; `none` where inside.")
    ] = None
    std: Annotated[str | None, _option("--std", help="Of pixels in [0, 1], per channel: 0.5,0.5,0.5.")] = None
    input_size: Annotated[
        int | None, _option("--input-size", min=1, max=65_536, help="Side that images are resized to for the net.")
    ] = None
    classes: Annotated[
        str | None, _option("--classes", help="The net's outputs for the data set's classes, in order: 0,217,482.")
    ] = None
    label_map: Annotated[
        Path | None,
        _option(
            "--label-map",
            help='JSON file {"class of the data set": output of the net}; for imagenet100 also the name `imagenet`.',
        ),
    ] = None
    num_classes: Annotated[
        int | None, _option("--num-classes", min=1, max=1 << 31, help="How many outputs the net has.")
    ] = None
    model_id: Annotated[str | None, _option("--model-id", help="What the model is called in the leaderboard.")] = None

    def source_options(self, *, download: bool, data_dir: Path | None) -> SourceOptions:
        """The same for the catalog; raises BenchError for a list that is none."""
        from bench.catalog.sources import SourceOptions

        lists = {
            "mean": _parse_numbers(self.mean, "--mean"),
            "std": _parse_numbers(self.std, "--std"),
            "classes": _parse_classes(self.classes),
        }
        return SourceOptions(**vars(self) | lists, download=download, data_dir=data_dir)


def _parse_numbers(text: str | None, option: str) -> tuple[float, ...] | None:
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


def _parse_classes(text: str | None) -> tuple[int, ...] | None:
    """`3,1,4` as whole numbers from 0."""
    from bench.core.errors import BenchError

    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 10 for part in parts):
        raise BenchError(f"--classes {text!r} is not a list of outputs; write them as 0,217,482.")
    return tuple(int(part) for part in parts)
