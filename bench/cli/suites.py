"""`bench suites`: list, show, validate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="List the suites, show one, or validate a file of your own.", invoke_without_command=True)


@app.callback()
def list_command(context: typer.Context) -> None:
    """List the suites, show one, or validate a file of your own."""
    if context.invoked_subcommand is not None:
        return
    from bench.catalog.suites import list_suites
    from bench.cli.rendering import output, table

    rows = [
        [suite.name, str(suite.file.version), str(suite.file.examples), suite.file.description]
        for suite in list_suites()
    ]
    output().print(table(["suite", "version", "images", "description"], rows, right=("version", "images")))


@app.command("show")
def show(name: Annotated[str, typer.Argument(help="Name of a suite, or a TOML file.")]) -> None:
    """Print a suite's file."""
    from bench.catalog.suites import resolve_suites
    from bench.core.files import read_regular

    for suite in resolve_suites([name]):
        typer.echo(f"# {suite.path}\n# sha256 of its content: {suite.sha256}")
        typer.echo(read_regular(suite.path).decode(), nl=False)


@app.command("validate")
def validate(file: Annotated[Path, typer.Argument(help="A suite's TOML file.")]) -> None:
    """Check a suite file; says what is wrong in it and exits with 2, or that it is right."""
    from bench.catalog.suites import read_suite
    from bench.protocols import protocol_for

    suite = read_suite(file)
    protocol_for(suite)
    typer.echo(
        f"{file}: a valid suite {suite.name!r} of protocol {suite.file.protocol!r}, version {suite.file.version}"
    )
