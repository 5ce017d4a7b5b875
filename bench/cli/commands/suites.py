"""`bench suites`: list, show, validate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import Json, SuitePath, goes_on
from bench.cli.output.rendering import output, table
from bench.core.threat import with_texts

if TYPE_CHECKING:
    from bench.catalog.suites import Suite

app = typer.Typer(help="List the suites, show one, or validate a file of your own.", invoke_without_command=True)


@app.command("list", help="List the suites.")
@app.callback()
def list_command(context: typer.Context, suite_path: SuitePath = None, as_json: Json = False) -> None:
    """List the suites, show one, or validate a file of your own."""
    if goes_on(context):
        return
    from bench.catalog.suites import list_suites

    found = list_suites(suite_path)
    if as_json:
        _print_json(found)
        return
    rows = [[one.name, str(one.file.version), str(one.file.examples), one.file.description] for one in found]
    output().print(table(["suite", "version", "images", "description"], rows, right=("version", "images")))


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="Name of a suite, or a TOML file.")],
    suite_path: SuitePath = None,
    as_json: Json = False,
) -> None:
    """Print a suite's file; with what it extends, where it does."""
    from bench.catalog.suites import resolve_suites
    from bench.core.files import read_regular

    found = resolve_suites([name], suite_path)
    if as_json:
        _print_json(found)
        return
    for suite in found:
        typer.echo(f"# {suite.path}\n# sha256 of its content: {suite.sha256}")
        typer.echo(_resolved(suite) if suite.extends else read_regular(suite.path).decode(), nl=False)


def _print_json(suites: Sequence[Suite]) -> None:
    from bench.cli.output.json_output import print_json, suite_entry

    print_json("suites", suites=[suite_entry(suite) for suite in suites])


@app.command("validate")
def validate(file: Annotated[Path, typer.Argument(help="A suite's TOML file.")], suite_path: SuitePath = None) -> None:
    """Check a suite file; says what is wrong in it and exits with 2, or that it is right.

    A suite that extends another is printed as it comes out.
    """
    from bench.catalog.suites import read_suite
    from bench.protocols import protocol_for

    suite = read_suite(file, suite_path)
    protocol_for(suite)
    typer.echo(
        f"{file}: a valid suite {suite.name!r} of protocol {suite.file.protocol!r}, version {suite.file.version}"
    )
    if suite.extends:
        typer.echo(_resolved(suite), nl=False)


def _resolved(suite: Suite) -> str:
    """The TOML of a suite that extends another, as one file would say it."""
    import tomli_w

    content = suite.file.model_dump(exclude={"fractions"})
    content["parameters"] = with_texts(content["parameters"], suite.file.fractions)
    return f"# extends {', '.join(map(str, suite.extends))}\n{tomli_w.dumps(content)}"
