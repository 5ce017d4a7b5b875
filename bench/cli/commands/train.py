"""`bench train`: train a recipe and write the model into a registry folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from bench.cli.options import DataDir, Device, Download, parse_assignments, seed_option

if TYPE_CHECKING:
    from bench.training.fitting import TrainingRequest


class TrainCommand(TyperCommand):
    """`bench train`, whose help goes on with every recipe's parameters, read from the recipes themselves."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from bench.cli.commands.recipes import parameter_tables
        from bench.cli.output.rendering import output

        super().format_help(ctx, formatter)
        for part in parameter_tables():
            output().print(part)


def train(
    recipe: Annotated[str, typer.Option("--recipe", help="Name of a recipe; see `bench recipes`.")],
    output: Annotated[Path, typer.Option("--output", help="Registry folder; gets `<data set>/<id>/`.")],
    dataset: Annotated[str, typer.Option("--dataset", help="Data set to train on.")] = "fashion_mnist",
    model_id: Annotated[str | None, typer.Option("--id", help="Id of the model. [default: the recipe's name]")] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method", help="What `bench leaderboard --by method` puts it under. [default: the recipe's name]"
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="PARAMETER=VALUE of the recipe or its schedule. Repeatable.")
    ] = None,
    seed: Annotated[int, seed_option("Initial weights, order of examples, noise.")] = 0,
    device: Device = "auto",
    data_dir: DataDir = None,
    download: Download = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start again, and replace a model of that id.")] = False,
    compiled: Annotated[
        bool, typer.Option("--compile", help="torch.compile the net (standard, softplus, at_linf, at_l2, trades).")
    ] = False,
    tensorboard: Annotated[
        Path | None, typer.Option("--tensorboard", help="Folder for TensorBoard event files.", show_default=False)
    ] = None,
) -> None:
    """Train a model; stopped and started again, it goes on after the last whole epoch."""
    from bench.core.devices import resolve_device
    from bench.training import make_recipe
    from bench.training.fitting import TrainingRequest

    if recipe == "vae_gan":
        _train_vae_gan(
            output=output, dataset=dataset, model_id=model_id, assignments=assignments or [], seed=seed, device=device,
            data_dir=data_dir, download=download, fresh=fresh,
        )  # fmt: skip
        return
    chosen = parse_assignments(assignments or []) | ({"compile": True} if compiled else {})
    made = make_recipe(recipe, dataset, chosen)
    request = TrainingRequest(
        recipe=made, dataset=dataset, output=output, device=resolve_device(device), model_id=model_id, seed=seed,
        data_dir=data_dir, download=download, fresh=fresh, method=method,
    )  # fmt: skip
    _train_classifier(request, tensorboard)


def _train_classifier(request: TrainingRequest, tensorboard: Path | None) -> None:
    from contextlib import ExitStack

    from bench.cli.output.rendering import messages
    from bench.cli.output.rendering import output as standard_output
    from bench.cli.output.train_progress import EventFiles, TrainingDisplay
    from bench.training.epochs import Progress
    from bench.training.publish import train_and_publish

    title, epochs = f"{request.recipe.name} on {request.dataset}", request.recipe.schedule.epochs
    with ExitStack() as stack:
        watchers = []
        if tensorboard is not None:
            watchers.append(stack.enter_context(EventFiles(tensorboard / request.dataset / request.name)).show_epochs)
        display = stack.enter_context(TrainingDisplay(messages(), title, epochs))
        watchers.append(display.show_epochs)

        def tell(state: Progress) -> None:
            for watcher in watchers:
                watcher(state)

        entry = train_and_publish(request, on_progress=tell, on_targets=display.show_targets)
    accuracy = entry.card.accuracy
    standard_output().print(f"model:    {entry.folder}", soft_wrap=True)
    standard_output().print(f"accuracy: validation {accuracy.validation:.4f}, test {accuracy.test:.4f}")


def _train_vae_gan(
    output: Path,
    dataset: str,
    model_id: str | None,
    assignments: list[str],
    seed: int,
    device: str,
    data_dir: Path | None,
    download: bool,
    fresh: bool,
) -> None:
    """An autoencoder of the image manifold in place of a classifier."""
    from bench.cli.output.rendering import messages
    from bench.cli.output.rendering import output as standard_output
    from bench.cli.output.train_progress import TrainingDisplay
    from bench.core.devices import resolve_device
    from bench.training import make_recipe
    from bench.training.fitting import TrainingRequest
    from bench.training.vae_gan import RECIPE, make_vae_gan_recipe, train_vae_gan

    made = make_vae_gan_recipe(dataset, parse_assignments(assignments))
    unused = make_recipe("standard", dataset)
    request = TrainingRequest(
        recipe=unused, dataset=dataset, output=output, device=resolve_device(device), model_id=model_id or RECIPE,
        seed=seed, data_dir=data_dir, download=download, fresh=fresh,
    )  # fmt: skip
    with TrainingDisplay(messages(), f"{RECIPE} on {dataset}", made.epochs) as display:
        entry = train_vae_gan(made, request, on_progress=display.show_epochs)
    quality = entry.card.quality
    standard_output().print(f"autoencoder: {entry.folder}", soft_wrap=True)
    standard_output().print(
        f"test images: {100 * quality.explained_variance:.1f} % of the variance explained, "
        f"mean L2 distance to the reconstruction {quality.mean_l2:.2f}"
    )
