"""`bench recipes`: what `bench train` can train."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="List the training recipes, or show one with its parameters.", invoke_without_command=True)


@app.callback()
def list_command(context: typer.Context) -> None:
    """List the training recipes, or show one with its parameters."""
    if context.invoked_subcommand is not None:
        return
    from bench.cli.rendering import output, table
    from bench.training import list_recipes

    rows = [[template.name, template.summary, template.method.__name__] for template in list_recipes()]
    output().print(table(["recipe", "what it does", "method"], rows))


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="Name of a recipe.")],
    dataset: Annotated[str, typer.Option("--dataset", help="Data set whose values to show.")] = "fashion_mnist",
) -> None:
    """Show a recipe's parameters and schedule, with their values for a data set; `bench train --set` changes them."""
    import inspect

    from bench.cli.rendering import output, table
    from bench.training import make_recipe

    recipe = make_recipe(name, dataset)
    output().print(f"[bold]{name}[/]: {recipe.summary}")
    output().print(inspect.getdoc(type(recipe.method)) or "", markup=False)
    for title, part in (("parameters", recipe.method), ("schedule", recipe.schedule)):
        rows = [[key, str(getattr(part, key)), info.description or ""] for key, info in type(part).model_fields.items()]
        if rows:
            output().print(f"\n[bold]{title}[/]")
            output().print(table(["name", "value", "meaning"], rows))
