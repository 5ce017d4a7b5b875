"""`bench recipes`: what `bench train` can train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

app = typer.Typer(help="List the training recipes, or show one with its parameters.", invoke_without_command=True)


@app.callback()
def list_command(context: typer.Context) -> None:
    """List the training recipes, or show one with its parameters."""
    if context.invoked_subcommand is not None:
        return
    from bench.cli.rendering import output, table
    from bench.training import list_recipes
    from bench.training.vae_gan import RECIPE, SUMMARY, VaeGanRecipe

    rows = [[template.name, template.summary, template.method.__name__] for template in list_recipes()]
    rows.append([RECIPE, SUMMARY, VaeGanRecipe.__name__])
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
    from bench.training.vae_gan import RECIPE, SUMMARY, make_vae_gan_recipe

    parts: dict[str, BaseModel]
    if name == RECIPE:
        summary, parts = SUMMARY, {"parameters": make_vae_gan_recipe(dataset)}
    else:
        recipe = make_recipe(name, dataset)
        summary, parts = recipe.summary, {"parameters": recipe.method, "schedule": recipe.schedule}
    output().print(f"[bold]{name}[/]: {summary}")
    output().print(inspect.getdoc(type(parts["parameters"])) or "", markup=False)
    for title, part in parts.items():
        rows = [[key, str(getattr(part, key)), info.description or ""] for key, info in type(part).model_fields.items()]
        if rows:
            output().print(f"\n[bold]{title}[/]")
            output().print(table(["name", "value", "meaning"], rows))
