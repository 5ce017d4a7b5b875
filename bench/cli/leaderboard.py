"""`bench leaderboard`: models by metrics, only comparable rows ranked together."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import DEFAULT_LEADERBOARD, LeaderboardDir

if TYPE_CHECKING:
    from rich.table import Table

    from bench.results.pivot import Board


class Format(StrEnum):
    """What the leaderboard is printed as."""

    table = "table"
    csv = "csv"
    markdown = "markdown"
    json = "json"


def leaderboard(
    dataset: Annotated[str | None, typer.Option("--dataset", help="Only this data set.")] = None,
    suite: Annotated[str | None, typer.Option("--suite", help="Only this suite.")] = None,
    sort: Annotated[str | None, typer.Option("--sort", help="Column to sort by, as the header names it.")] = None,
    output_format: Annotated[Format, typer.Option("--format", help="How to print it.")] = Format.table,
    wide: Annotated[bool, typer.Option("--wide", help="All radii, even where the terminal is narrow.")] = False,
    directory: LeaderboardDir = DEFAULT_LEADERBOARD,
) -> None:
    """Show the latest result of every model; the best value of each column is marked."""
    from bench.cli.rendering import output
    from bench.core.names import select_names
    from bench.results.leaderboard import read_leaderboard
    from bench.results.pivot import make_boards

    rows = read_leaderboard(directory)
    for column, wanted in (("dataset", dataset), ("suite", suite)):
        if wanted is not None:
            names = select_names([wanted], sorted(set(rows[column])), column.replace("dataset", "data set"))
            rows = rows[rows[column].isin(names)]
    boards = make_boards(rows, sort)
    if output_format is Format.table:
        for board in boards:
            output().print(f"\n[bold]{board.title}[/]", soft_wrap=True)
            output().print(_table(board, wide=wide, width=output().width))
        return
    text = {Format.csv: _csv, Format.markdown: _markdown, Format.json: _json}[output_format](boards)
    typer.echo(text, nl=False)


def _table(board: Board, *, wide: bool, width: int) -> Table:
    from bench.cli.rendering import metric_value, table

    columns = list(board.frame.columns)
    hidden = 0
    if not wide and 24 + 13 * len(columns) > width:
        hidden = len(columns) - len(board.central)
        columns = board.central
    rows = [
        [
            str(model),
            *(
                _mark(
                    metric_value(name, row[name]),
                    len(board.frame) > 1 and row[name] == board.best(name),
                    "[bold green]*",
                    "[/]",
                )
                for name in columns
            ),
        ]
        for model, row in board.frame.iterrows()
    ]
    made = table(["model", *columns], rows, right=columns)
    more = f"; {hidden} more columns with --wide" if hidden else ""
    made.caption = f"accuracies in %, * best of its column, sorted by {board.sort}{more}"
    made.caption_justify = "left"
    return made


def _mark(text: str, best: bool, before: str, after: str) -> str:
    return f"{before}{text}{after}" if best and text != "nan" else text


def _csv(boards: list[Board]) -> str:
    import pandas as pd

    frames = []
    for board in boards:
        frame = board.frame.reset_index()
        for position, (name, value) in enumerate(board.facts.items()):
            frame.insert(position, name, value)
        frames.append(frame)
    return "" if not frames else str(pd.concat(frames, ignore_index=True).to_csv(index=False, lineterminator="\n"))


def _markdown(boards: list[Board]) -> str:
    from bench.cli.rendering import metric_value

    parts = []
    for board in boards:
        columns = list(board.frame.columns)
        lines = [f"### {board.title}", "", f"| model | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
        for model, row in board.frame.iterrows():
            cells = (
                _mark(metric_value(name, row[name]), row[name] == board.best(name), "**", "**") for name in columns
            )
            lines.append(f"| {model} | {' | '.join(cells)} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _json(boards: list[Board]) -> str:
    import json

    content = [
        {
            **board.facts,
            "sort": board.sort,
            "models": [
                {
                    "model": str(model),
                    "method": board.methods[str(model)],
                    "metrics": {name: None if value != value else value for name, value in row.items()},
                }
                for model, row in board.frame.iterrows()
            ],
        }
        for board in boards
    ]
    return json.dumps(content, indent=1) + "\n"
