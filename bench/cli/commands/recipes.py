"""`bench recipes`: what `bench train` can train."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import DataDir, goes_on, parse_assignments
from bench.cli.output.rendering import output, table

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import RenderableType

app = typer.Typer(help="List the training recipes, or show one with its parameters.", invoke_without_command=True)


@app.command("list", help="List the training recipes.")
@app.callback()
def list_command(context: typer.Context) -> None:
    """List the training recipes, or show one with its parameters."""
    if goes_on(context):
        return
    from bench.training import list_recipes
    from bench.training.vae_gan import RECIPE, SUMMARY

    rows = [*([template.name, template.summary] for template in list_recipes()), [RECIPE, SUMMARY]]
    output().print(table(["recipe", "what it does"], rows))


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="Name of a recipe.")],
    dataset: Annotated[str, typer.Option("--dataset", help="Data set whose values to show.")] = "fashion_mnist",
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="PARAMETER=VALUE as in `bench train`, e.g. architecture=resnet18. Repeatable."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Show a recipe's parameters and schedule, with their values for a data set; `bench train --set` changes them."""
    from bench.data.loading import require_dataset
    from bench.training import make_recipe
    from bench.training.vae_gan import RECIPE, SUMMARY, make_vae_gan_recipe

    chosen = parse_assignments(assignments or [])
    require_dataset(dataset, data_dir)
    parts: dict[str, BaseModel]
    if name == RECIPE:
        summary, parts = SUMMARY, {"parameters": make_vae_gan_recipe(dataset, chosen)}
    else:
        recipe = make_recipe(name, dataset, chosen)
        summary, parts = recipe.summary, {"parameters": recipe.method, "schedule": recipe.schedule}
    output().print(name, f": {summary}", sep="")
    output().print(inspect.getdoc(type(parts["parameters"])) or "")
    for title, part in parts.items():
        rows = [[key, str(getattr(part, key)), info.description or ""] for key, info in type(part).model_fields.items()]
        if rows:
            output().print(f"\n{title}", style="bold")
            output().print(table(["name", "value", "meaning"], rows))


def parameter_tables() -> Iterator[RenderableType]:
    """One table a method, with the recipes that use it and their Fashion-MNIST values; then the schedule's."""
    from rich.text import Text

    from bench.training import list_recipes, make_recipe
    from bench.training.recipe import Schedule

    by_method: dict[type, list[str]] = {}
    for template in list_recipes():
        by_method.setdefault(template.method, []).append(template.name)
    for method, names in by_method.items():
        recipes = [make_recipe(name, "fashion_mnist").method for name in names]
        rows = []
        for key, info in method.model_fields.items():  # type: ignore[attr-defined]
            values = [str(getattr(recipe, key)) for recipe in recipes]
            shown = values[0] if len(set(values)) == 1 else ", ".join(values)
            rows.append([key, shown, info.description or ""])
        yield Text.assemble("\n", (", ".join(names), "bold"), f": {(method.__doc__ or '').splitlines()[0]}")
        if rows:
            yield table(["--set", "default", "meaning"], rows)
    schedule = [
        [key, str(info.get_default(call_default_factory=True)), info.description or ""]
        for key, info in Schedule.model_fields.items()
    ]
    yield Text("\nschedule, of every recipe", style="bold")
    yield table(["--set", "default", "meaning"], schedule)
