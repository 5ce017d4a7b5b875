"""`bench models`: the registry."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.option_groups import OwnModel, with_groups
from bench.cli.options import (
    EXIT_NEGATIVE,
    DataDir,
    Device,
    Download,
    Json,
    Programs,
    Registry,
    goes_on,
    warn_of_broken_cards,
)
from bench.cli.output.rendering import output, percent, table

if TYPE_CHECKING:
    from bench.catalog.models import ModelEntry

OnlyDataset = Annotated[str | None, typer.Option("--dataset", help="Only models of this data set.")]
app = typer.Typer(help="List, show, add or verify registered models.", invoke_without_command=True)


@app.callback()
def models(
    context: typer.Context, dataset: OnlyDataset = None, registry: Registry = None, as_json: Json = False
) -> None:
    """List, show, add or verify registered models."""
    if not goes_on(context):
        list_command(dataset=dataset, registry=registry, as_json=as_json)


@app.command("list")
def list_command(
    patterns: Annotated[
        list[str] | None,
        typer.Argument(help="Names or wildcards: `at_*`, `mnist/*`. [default: all]", show_default=False),
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", help="Leave these out. Repeatable.")] = None,
    dataset: OnlyDataset = None,
    registry: Registry = None,
    as_json: Json = False,
) -> None:
    """List registered models: all, or those that names and wildcards stand for."""
    from bench.catalog.models import list_models
    from bench.data.loading import require_dataset

    warn_of_broken_cards(registry)
    found = list_models(dataset, registry, patterns=patterns or (), exclude=exclude or ())
    if dataset is not None and not found:
        require_dataset(dataset)
    if as_json:
        _print_json(found)
        return
    rows = []
    for entry in found:
        card = entry.card
        test = "" if card.accuracy.test is None else percent(card.accuracy.test)
        rows.append([card.name, card.method, card.architecture, f"{card.weights.parameters:,}", test])
    columns = ["model", "method", "net", "weights", "test, %"]
    output().print(table(columns, rows, right=columns[3:]))


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="Model, e.g. at_linf or mnist/at_linf.")],
    registry: Registry = None,
    as_json: Json = False,
) -> None:
    """Print a model's card."""
    import tomli_w

    from bench.catalog.models import resolve_models

    found = resolve_models([name], registry=registry)
    if as_json:
        _print_json(found)
        return
    for entry in found:
        typer.echo(f"# {entry.folder / 'card.toml'}")
        typer.echo(tomli_w.dumps(entry.card.model_dump(exclude_none=True)))


def _print_json(entries: Sequence[ModelEntry]) -> None:
    from bench.cli.output.json_output import model_entry, print_json

    print_json("models", models=[model_entry(entry) for entry in entries])


@app.command("measure")
def measure(
    names: Annotated[list[str], typer.Argument(help="Models that `bench train` made; wildcards allowed.")],
    dataset: OnlyDataset = None,
    registry: Registry = None,
    device: Device = "auto",
    data_dir: DataDir = None,
    download: Download = False,
) -> None:
    """Measure the stability and alignment of models' input gradients on held-out examples, and write their cards."""
    from bench.catalog.models import resolve_models
    from bench.catalog.sources import SourceOptions
    from bench.core.devices import resolve_device
    from bench.training.publish import remeasure

    rows = []
    for entry in resolve_models(names, dataset, options=SourceOptions(download=download), registry=registry):
        gradients = remeasure(entry, resolve_device(device), data_dir, download=download).card.gradients
        assert gradients is not None  # noqa: S101  remeasure has just written it
        aligned = "-" if gradients.target_cosine is None else f"{gradients.target_cosine:.3f}"
        stability = [f"{value:.3f}" for value in gradients.stability.values()]
        rows.append([entry.card.name, f"{gradients.norm:.3f}", *stability, aligned])
    columns = ["model", "gradient norm", "stability 4/255", "8/255", "16/255", "cosine to targets"]
    output().print(table(columns, rows, right=columns[1:]))


@app.command("add")
@with_groups
def add(
    model: Annotated[str, typer.Argument(help="FILE.py:FACTORY, timm:NAME, onnx:FILE, ...; see `bench run --help`.")],
    registry: Annotated[Path, typer.Option("--registry", help="Folder of models to add it to; made if need be.")],
    dataset: Annotated[str, typer.Option("--dataset", help="Data set that it classifies.")] = "fashion_mnist",
    method: Annotated[str, typer.Option("--method", help="How it was trained, e.g. at_linf.")] = "external",
    description: Annotated[str | None, typer.Option("--description", help="One line for the card.")] = None,
    examples: Annotated[
        int, typer.Option("--examples", min=1, help="Test images its clean accuracy is measured on.")
    ] = 1000,
    device: Device = "auto",
    data_dir: DataDir = None,
    download: Download = False,
    *,
    own: OwnModel,
) -> None:
    """Write a model of your own, weights and card, into a registry folder."""
    from bench.core.devices import resolve_device
    from bench.runs.registering import add_model

    source = own.source_options(download=download, data_dir=data_dir)
    entry = add_model(
        model, registry, dataset=dataset, source=source, method=method, description=description, examples=examples,
        device=resolve_device(device), data_dir=data_dir,
    )  # fmt: skip
    output().print(f"{entry.card.name}: {entry.folder}", soft_wrap=True)
    assert entry.card.accuracy.test is not None  # noqa: S101  add_model has just measured it
    output().print(
        f"clean accuracy {percent(entry.card.accuracy.test)} % on {entry.card.accuracy.test_examples} images"
    )
    needs = f" --program {shlex.quote(model.rpartition(':')[0] or model)}" if entry.card.program is not None else ""
    output().print(
        f"run it: bench run --registry {shlex.quote(str(registry))} --model {entry.card.name}{needs} --suite ...",
        soft_wrap=True,
    )


@app.command("verify")
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="Models; wildcards allowed. [default: all]")] = None,
    dataset: OnlyDataset = None,
    registry: Registry = None,
    program: Programs = None,
    examples: Annotated[
        int, typer.Option("--examples", min=1, help="Test images to measure clean accuracy on.")
    ] = 1000,
    device: Device = "auto",
    data_dir: DataDir = None,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Check cards against what they describe: digests, shapes, clean accuracy. Exit code 1 if any is wrong."""
    from bench.core.devices import resolve_device
    from bench.runs.registering import verify_cards

    verdicts = verify_cards(
        names or [], dataset, registry=registry, programs=program or (), examples=examples,
        device=resolve_device(device), data_dir=data_dir, download=download,
    )  # fmt: skip
    counts = {state: sum(verdict.state == state for verdict in verdicts) for state in ("right", "wrong", "not checked")}
    if as_json:
        from bench.cli.output.json_output import print_json

        print_json("models verify", verdicts=verdicts)
    else:
        rows = [[verdict.model, verdict.state, verdict.detail] for verdict in verdicts]
        output().print(table(["model", "", "what was found"], rows))
        output().print(", ".join(f"{count} {state}" for state, count in counts.items() if count))
    if counts["wrong"]:
        raise typer.Exit(EXIT_NEGATIVE)
