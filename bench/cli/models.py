"""`bench models`: the registry."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.cli.options import DataDir, Device, Download

app = typer.Typer(help="List the registered models, or show one card.", invoke_without_command=True)


@app.callback()
def list_command(
    context: typer.Context,
    dataset: Annotated[str | None, typer.Option("--dataset", help="Only models of this data set.")] = None,
) -> None:
    """List the registered models, or show one card."""
    if context.invoked_subcommand is not None:
        return
    from bench.catalog.models import list_models
    from bench.cli.rendering import output, percent, table

    rows = []
    for entry in list_models(dataset):
        card = entry.card
        test = "" if card.accuracy.test is None else percent(card.accuracy.test)
        rows.append([card.name, card.description, card.architecture, f"{card.weights.parameters:,}", test])
    columns = ["model", "method", "architecture", "parameters", "test accuracy, %"]
    output().print(table(columns, rows, right=columns[3:]))


@app.command("show")
def show(name: Annotated[str, typer.Argument(help="Model, e.g. at_linf or mnist/at_linf.")]) -> None:
    """Print a model's card."""
    import tomli_w

    from bench.catalog.models import resolve_models

    for entry in resolve_models([name]):
        typer.echo(f"# {entry.folder / 'card.toml'}")
        typer.echo(tomli_w.dumps(entry.card.model_dump(exclude_none=True)))


@app.command("measure")
def measure(
    names: Annotated[list[str], typer.Argument(help="Models that `bench train` made; wildcards allowed.")],
    dataset: Annotated[str | None, typer.Option("--dataset", help="Only models of this data set.")] = None,
    device: Device = "auto",
    data_dir: DataDir = None,
    download: Download = False,
) -> None:
    """Measure the stability and alignment of models' input gradients on held-out examples, and write their cards."""
    from bench.catalog.models import resolve_models
    from bench.cli.rendering import output, table
    from bench.core.devices import resolve_device
    from bench.training.remeasure import remeasure

    rows = []
    for entry in resolve_models(names, dataset):
        gradients = remeasure(entry, resolve_device(device), data_dir, download=download).card.gradients
        assert gradients is not None  # noqa: S101  remeasure has just written it
        aligned = "-" if gradients.target_cosine is None else f"{gradients.target_cosine:.3f}"
        rows.append([entry.card.name, *(f"{value:.3f}" for value in gradients.stability.values()), aligned])
    columns = ["model", "stability 4/255", "8/255", "16/255", "cosine to targets"]
    output().print(table(columns, rows, right=columns[1:]))
