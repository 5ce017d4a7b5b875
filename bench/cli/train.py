"""`bench train`: train a recipe and write the model into a registry folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.options import DataDir, Device, Download

if TYPE_CHECKING:
    from bench.training.trainer import Progress as TrainingProgress


def train(
    recipe: Annotated[str, typer.Option("--recipe", help="Name of a recipe; see `bench recipes`.")],
    output: Annotated[Path, typer.Option("--output", help="Registry folder; gets <data set>/<id>/.")],
    dataset: Annotated[str, typer.Option("--dataset", help="Data set to train on.")] = "fashion_mnist",
    model_id: Annotated[str | None, typer.Option("--id", help="Id of the model. [default: the recipe's name]")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="PARAMETER=VALUE of the recipe or its schedule. Repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Initial weights, order of examples, noise.")] = 0,
    device: Device = "auto",
    data_dir: DataDir = None,
    download: Download = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start again, and replace a model of that id.")] = False,
) -> None:
    """Train a model; stopped and started again, it goes on after the last whole epoch."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from bench.cli.rendering import messages
    from bench.cli.rendering import output as standard_output
    from bench.core.devices import resolve_device
    from bench.training import make_recipe
    from bench.training.publish import train_and_publish

    made = make_recipe(recipe, dataset, parse_assignments(assignments or []))
    resolved = resolve_device(device)
    console = messages()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        targets = progress.add_task("target maps", visible=False, total=1)
        epochs = progress.add_task(f"{recipe} on {dataset}", total=made.schedule.epochs)

        def show_targets(done: int, total: int) -> None:
            progress.update(targets, completed=done, total=total, visible=True)

        def show_epochs(state: TrainingProgress) -> None:
            progress.update(epochs, completed=state.epoch + state.step / max(1, state.steps))
            if state.row is not None:
                terms = "  ".join(f"{name} {value:.4g}" for name, value in state.row.items() if name != "epoch")
                console.print(f"epoch {state.epoch}  {terms}", soft_wrap=True)

        entry = train_and_publish(
            made, dataset, output, model_id=model_id, seed=seed, device=resolved, data_dir=data_dir, download=download,
            fresh=fresh, on_progress=show_epochs, on_targets=show_targets,
        )  # fmt: skip
    accuracy = entry.card.accuracy
    standard_output().print(f"model:    {entry.folder}", soft_wrap=True)
    standard_output().print(f"accuracy: validation {accuracy.validation:.4f}, test {accuracy.test:.4f}")


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """`name=value` pairs, values as TOML has them, bare words as strings; raises BenchError."""
    import tomllib

    from bench.core.errors import BenchError

    parsed: dict[str, Any] = {}
    for assignment in assignments:
        name, sign, value = assignment.partition("=")
        if not sign or not name.strip() or not value.strip():
            raise BenchError(f"--set {assignment!r} is not PARAMETER=VALUE.")
        try:
            parsed[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed[name.strip()] = value.strip()
    return parsed
