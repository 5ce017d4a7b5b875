"""`bench datasets`: the known data sets and where they are found."""

from __future__ import annotations

import typer

from bench.cli.options import DataDir, Json, goes_on
from bench.cli.output.rendering import output, table

app = typer.Typer(help="List the data sets and where they are found on this machine.", invoke_without_command=True)


@app.command("list", help="List the data sets and where they are found on this machine.")
@app.callback()
def list_command(context: typer.Context, data_dir: DataDir = None, as_json: Json = False) -> None:
    """List the data sets and where they are found on this machine, with those that a data dir declares."""
    if goes_on(context):
        return
    from bench.data import DATASETS, describe_sources

    if as_json:
        from bench.cli.output.json_output import dataset_entry, print_json

        print_json("datasets", datasets=[dataset_entry(source) for source in describe_sources(data_dir)])
        return
    rows = []
    for name, split, where, problem in describe_sources(data_dir):
        spec = DATASETS.get(name)
        shape = f"{spec.in_channels}x{spec.image_size}x{spec.image_size}" if spec else ""
        classes, licence = (str(spec.num_classes), spec.licence) if spec else ("", "")
        missing = "not here (try --download)" if spec and spec.torchvision_class else "not here"
        rows.append([name, split, shape, classes, licence, where or problem or missing])
    output().print(table(["data set", "split", "shape", "classes", "licence", "found"], rows, right=("classes",)))
