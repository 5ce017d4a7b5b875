"""`bench tune`: a grid search over a recipe's parameters on the validation split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bench.cli.interrupts import keeping
from bench.cli.options import DataDir, Device, Download, parse_assignments, require_once, seed_option
from bench.cli.output.rendering import messages, table
from bench.cli.output.rendering import output as standard_output


def tune(
    recipe: Annotated[str, typer.Option("--recipe", help="Name of a recipe; see `bench recipes`.")],
    output: Annotated[Path, typer.Option("--output", help="Registry folder; gets `<data set>/tuning.csv`.")],
    grid: Annotated[list[str], typer.Option("--grid", help="PARAMETER=VALUE,VALUE,... Repeatable: all combinations.")],
    dataset: Annotated[str, typer.Option("--dataset", help="Data set to train on.")] = "fashion_mnist",
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="PARAMETER=VALUE for all settings. Repeatable.")
    ] = None,
    seed: Annotated[int, seed_option("Initial weights, order of examples, noise.")] = 0,
    device: Device = "auto",
    data_dir: DataDir = None,
    download: Download = False,
) -> None:
    """Train every setting of a grid and keep what each gives on held-out examples; settings done before are kept."""
    from bench.cli.output.progress import TrainingDisplay
    from bench.core.devices import resolve_device
    from bench.training import make_recipe
    from bench.training.fitting import TrainingRequest
    from bench.training.tuning import grid as combinations
    from bench.training.tuning import try_setting

    require_once([*grid, *(assignments or [])])
    fixed = parse_assignments(assignments or [])
    settings = list(combinations(_parse_grid(grid)))
    made = [make_recipe(recipe, dataset, fixed | setting) for setting in settings]
    rows = []
    for one, setting in zip(made, settings, strict=True):
        request = TrainingRequest(
            recipe=one, dataset=dataset, output=output, device=resolve_device(device), model_id=None, seed=seed,
            data_dir=data_dir, download=download,
        )  # fmt: skip
        title = "  ".join(f"{name} {value}" for name, value in setting.items())
        kept = "finished trials and whole epochs are kept; run the same command again to go on"
        with keeping(kept), TrainingDisplay(messages(), title, one.schedule.epochs) as display:
            rows.append(try_setting(request, fixed | setting, display.show_epochs))
    shown = [name for name in rows[0] if name not in ("recipe", "seed", "recipe_sha256", "data_sha256")]
    standard_output().print(table(shown, [[_show(row.get(name)) for name in shown] for row in rows]))


def _show(value: Any) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _parse_grid(entries: list[str]) -> dict[str, list[Any]]:
    """`name=value,value` as TOML values, bare words as strings, each once."""
    parsed: dict[str, list[Any]] = {}
    for entry in entries:
        name, _, values = entry.partition("=")
        each = [value for part in values.split(",") for value in parse_assignments([f"{name}={part}"]).values()]
        parsed[name.strip()] = [value for place, value in enumerate(each) if value not in each[:place]]
    return parsed
