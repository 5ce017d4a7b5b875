"""`bench leaderboard`: models by metrics, only comparable rows ranked together."""

from __future__ import annotations

import shutil
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import DEFAULT_LEADERBOARD, Json, LeaderboardDir, OnlyDataset, OnlySuite, Registry, goes_on
from bench.cli.output.rendering import output, table, warn
from bench.core.errors import BenchError

if TYPE_CHECKING:
    import pandas as pd

    from bench.leaderboard.boards import Board

app = typer.Typer(
    help="Show the latest result of every model, merge leaderboards, or prune one.", invoke_without_command=True
)


Format = StrEnum("Format", "table csv markdown latex json")
By = StrEnum("By", "model method")
Pareto = Annotated[
    str | None,
    typer.Option(
        "--pareto",
        help="Two columns, e.g. 'clean, L-inf 0.1', or 'clean, stability 8/255' (of cards): rows no other beats.",
    ),
]
Ranks = Annotated[
    bool | None,
    typer.Option("--ranks/--no-ranks", help="Rank by paired tests (Holm, 5 %). [default: where the evidence is]"),
]
AllVersions = Annotated[
    bool,
    typer.Option("--all-versions", help="Older versions of a suite too, where a model has been judged in a newer."),
]


Columns = Annotated[
    str | None,
    typer.Option("--columns", help="Only these, as headers name them, e.g. 'clean, L-inf *, union'; in this order."),
]


@app.callback()
def leaderboard(
    context: typer.Context,
    dataset: OnlyDataset = None,
    suite: OnlySuite = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="Only these models; wildcards. Repeatable.")
    ] = None,
    sort: Annotated[str | None, typer.Option("--sort", help="Column to sort by, as the header names it.")] = None,
    by: Annotated[By, typer.Option("--by", help="A row for each model, or one for all seeds of a method.")] = By.model,
    pareto: Pareto = None,
    ranks: Ranks = None,
    output_format: Annotated[Format, typer.Option("--format", help="How to print it.")] = Format.table,
    columns: Columns = None,
    intervals: Annotated[bool, typer.Option("--intervals", help="The 95 % interval beside each value.")] = False,
    wide: Annotated[bool, typer.Option("--wide", help="All radii, even where the terminal is narrow.")] = False,
    all_versions: AllVersions = False,
    directory: LeaderboardDir = DEFAULT_LEADERBOARD,
    registry: Registry = None,
    as_json: Json = False,
) -> None:
    """Show the latest result of every model; the best value of each column is marked."""
    if goes_on(context):
        return
    from bench.leaderboard.boards import make_boards
    from bench.leaderboard.evidence.doubts import board_doubts
    from bench.leaderboard.table import of_newest_versions, rows_to_show

    if as_json and output_format not in (Format.table, Format.json):
        raise BenchError(f"--json or --format {output_format}, not both.")
    rows = rows_to_show(directory, dataset=[dataset], suite=[suite], model=model or [])
    rows = rows if all_versions else of_newest_versions(rows)
    boards = [_with_union(board, directory) for board in make_boards(rows, sort, directory)]
    warn(board_doubts(directory, rows))
    if by is By.model and pareto is None:
        boards = [_ranked(board, rows, directory, ranks) for board in boards]
    else:
        if ranks:
            raise BenchError("neither a mean over seeds nor a Pareto front is a ranking; leave out --ranks.")
        boards = _views(boards, by, pareto, directory, registry=registry)
    if columns is not None:
        from bench.leaderboard.views import with_columns

        boards = with_columns(boards, [name.strip() for name in columns.split(",")])
    _print(boards, Format.json if as_json else output_format, wide=wide or columns is not None, intervals=intervals)


@app.command("merge")
def merge(
    sources: Annotated[list[Path], typer.Argument(help="Leaderboard folders to add.")],
    into: Annotated[Path, typer.Option("--into", help="Leaderboard folder that gets their runs.")],
) -> None:
    """Copy the runs of other leaderboards into one: rows and evidence; runs that it has already are left out."""
    from bench.leaderboard.merge import merge_leaderboards

    for source, outcome in zip(sources, merge_leaderboards(sources, into), strict=True):
        output().print(f"{source}: {outcome.added} runs added, {outcome.known} known already", soft_wrap=True)


@app.command("prune")
def prune(
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; without it they are only shown.")] = False,
    directory: LeaderboardDir = DEFAULT_LEADERBOARD,
) -> None:
    """Remove runs that a newer version of their suite, or a repetition, has superseded; studies keep their evidence."""
    from bench.leaderboard.prune import remove_runs, superseded_runs

    runs = superseded_runs(directory)
    if runs:
        cells = [[run.model, f"{run.suite} version {run.suite_version}", run.run_id, run.by] for run in runs]
        output().print(table(["model", "suite", "run", "superseded by"], cells), soft_wrap=True)
    if yes:
        remove_runs(directory, {run.run_id for run in runs})
    state = "removed" if yes else "superseded" + ("; --yes removes them" if runs else "")
    megabytes = sum(run.size for run in runs) / 1e6
    output().print(f"{len(runs)} runs, {megabytes:.1f} MB of evidence, {state}", soft_wrap=True)


def _with_union(board: Board, directory: Path) -> Board:
    """The board with the union's radii in its title, and among its central columns those of its parts."""
    from bench.leaderboard.evidence.union_note import union_note, union_radii

    radii = union_radii(directory, board.runs.values(), {column.key.metric for column in board.columns})
    columns = tuple(
        replace(column, central=key.eps == radii[key.norm])
        if (key := column.key).metric == "robust_accuracy" and key.norm in radii
        else column
        for column in board.columns
    )
    sort = columns[board.columns.index(board.sort)]
    return replace(board, title=board.title + union_note(radii), columns=columns, sort=sort)


def _ranked(board: Board, rows: pd.DataFrame, directory: Path, asked: bool | None) -> Board:
    """With ranks where they are asked for; where nothing was said, only if the evidence of all runs is there."""
    manifests = [directory / "runs" / run / "manifest.json" for run in board.runs.values()]
    gone = [path.parent.name for path in manifests if not path.is_file()]
    if asked is False or (asked is None and gone):
        if asked is None and len(gone) < len(manifests):
            more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
            warn([f"no ranks in {board.title}: there is no evidence of run {gone[0]}{more}; restore it."])
        return board
    from bench.comparison.ranks import ranked_board, ranked_if_tested

    # `--ranks` says why there are none
    return (ranked_board if asked else ranked_if_tested)(board, rows, directory)


def _print(boards: list[Board], output_format: Format, *, wide: bool, intervals: bool) -> None:
    from bench.cli.output import board_formats

    if output_format is Format.json:
        from bench.cli.output.json_output import board_entry, print_json

        print_json("leaderboard", boards=[board_entry(board) for board in boards])
        return
    if output_format is Format.table:
        console = output(unfolded=wide)
        width = console.width if wide else shutil.get_terminal_size().columns
        for board in boards:
            console.print(f"\n{board.title}", style="bold", soft_wrap=True)
            console.print(board_formats.as_table(board, wide=wide, width=width, intervals=intervals))
        return
    makers = {
        Format.csv: board_formats.as_csv,
        Format.markdown: board_formats.as_markdown,
        Format.latex: board_formats.as_latex,
    }
    typer.echo(makers[output_format](boards, intervals=intervals), nl=False)


def _views(boards: list[Board], by: By, pareto: str | None, directory: Path, registry: Path | None) -> list[Board]:
    """With seeds taken together, and cut to the Pareto fronts of those with both columns; raises BenchError."""
    from bench.leaderboard.views import by_method, pareto_front
    from bench.reporting.card_columns import with_stability

    if by is By.method:
        from bench.comparison.seed_groups import seed_groups

        boards = [by_method(board, seed_groups(board, directory)) for board in boards]
    if pareto is None:
        return boards
    names = [name.strip() for name in pareto.split(",")]
    if len(names) != 2:
        raise BenchError(f"--pareto {pareto!r} is not two columns; write it as 'clean, L-inf 0.1'.")
    found, problems = [], []
    for board in boards:
        try:
            whole = with_stability(board, names, directory, registry) if by is By.model else board
            found.append(pareto_front(whole, (names[0], names[1])))
        except BenchError as error:
            problems.append(error)
    if problems and not found:
        raise problems[0]
    return found
