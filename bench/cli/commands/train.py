"""`bench train`: train a recipe and write the model into a registry folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from bench.cli.interrupts import keeping
from bench.cli.options import DataDir, Device, Download, parse_assignments, seed_option
from bench.cli.output.rendering import messages, output

if TYPE_CHECKING:
    from bench.training.epochs import Progress
    from bench.training.fitting import TrainingRequest


class TrainCommand(TyperCommand):
    """`bench train`, whose help goes on with every recipe's parameters, read from the recipes themselves."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from bench.cli.commands.recipes import parameter_tables

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

    chosen = parse_assignments([*(assignments or []), *(["compile=true"] if compiled else [])])
    autoencoder = recipe == "vae_gan"
    made = make_recipe("standard", dataset) if autoencoder else make_recipe(recipe, dataset, chosen)
    request = TrainingRequest(
        recipe=made, dataset=dataset, output=output, device=resolve_device(device), model_id=model_id or recipe,
        seed=seed, data_dir=data_dir, download=download, fresh=fresh, method=method,
    )  # fmt: skip
    if autoencoder:
        _train_autoencoder(request, chosen, tensorboard)
    else:
        _train_classifier(request, tensorboard)


def _train_classifier(request: TrainingRequest, tensorboard: Path | None) -> None:
    from bench.training.publish import train_and_publish

    title = f"{request.recipe.name} on {request.dataset}"
    with _watched(request, title, request.recipe.schedule.epochs, tensorboard) as (show_epochs, show_targets):
        entry = train_and_publish(request, on_progress=show_epochs, on_targets=show_targets)
    accuracy = entry.card.accuracy
    output().print(f"model:    {entry.folder}", soft_wrap=True)
    output().print(f"accuracy: validation {accuracy.validation:.4f}, test {accuracy.test:.4f}")


def _train_autoencoder(request: TrainingRequest, chosen: dict[str, Any], tensorboard: Path | None) -> None:
    """An autoencoder of the image manifold in place of a classifier."""
    from bench.training.vae_gan import RECIPE, make_vae_gan_recipe, train_vae_gan

    made = make_vae_gan_recipe(request.dataset, chosen)
    with _watched(request, f"{RECIPE} on {request.dataset}", made.epochs, tensorboard) as (show_epochs, _):
        entry = train_vae_gan(made, request, on_progress=show_epochs)
    quality = entry.card.quality
    output().print(f"autoencoder: {entry.folder}", soft_wrap=True)
    output().print(
        f"test images: {100 * quality.explained_variance:.1f} % of the variance explained, "
        f"mean L2 distance to the reconstruction {quality.mean_l2:.2f}"
    )


@contextmanager
def _watched(
    request: TrainingRequest, title: str, epochs: int, tensorboard: Path | None
) -> Iterator[tuple[Callable[[Progress], None], Callable[[int, int], None]]]:
    """What a training reports epochs and target maps to: the display, and event files where they are asked for."""
    from bench.cli.output.progress import EventFiles, TrainingDisplay

    with keeping("whole epochs are kept; run the same command again to go on"), ExitStack() as stack:
        watchers = []
        if tensorboard is not None:
            files = stack.enter_context(closing(EventFiles(tensorboard / request.dataset / request.name)))
            watchers.append(files.show_epochs)
        display = stack.enter_context(TrainingDisplay(messages(), title, epochs))
        watchers.append(display.show_epochs)

        def tell(state: Progress) -> None:
            for watcher in watchers:
                watcher(state)

        yield tell, display.show_targets
