"""`bench models`: the registry."""

from __future__ import annotations

from typing import Annotated

import typer

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
