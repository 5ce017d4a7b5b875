"""Boards as text: CSV, Markdown, LaTeX, JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bench.cli.output.rendering import markdown, percent, printable
from bench.core.files import json_text
from bench.leaderboard.table import as_cell

if TYPE_CHECKING:
    from bench.leaderboard.pivot import Board

_LATEX_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    character: f"\\{character}" for character in "&%$#_{}"
}


def cell(board: Board, model: str, column: str) -> str:
    """A value as people read it: per cent for shares, with the spread over seeds where rows are methods."""
    value = float(board.frame.loc[model, column])  # type: ignore[arg-type]
    if value != value:
        return "-"
    shown = percent if board.units[column] == "share" else _plain
    spread = None if board.spread is None else float(board.spread.loc[model, column])  # type: ignore[arg-type]
    return shown(value) if spread is None or spread != spread else f"{shown(value)} ± {shown(spread)}"


def _plain(value: float) -> str:
    return f"{value:.3g}"


def is_best(board: Board, model: str, column: str) -> bool:
    return len(board.frame) > 1 and bool(board.frame.loc[model, column] == board.best(column))


def as_csv(boards: Sequence[Board], ranks: Sequence[dict[str, int] | None]) -> str:
    import pandas as pd

    frames = []
    for board, rank in zip(boards, ranks, strict=True):
        frame = board.frame.reset_index()
        if rank is not None:
            frame.insert(1, "rank", [rank[str(model)] for model in board.frame.index])
        if board.spread is not None:
            frame.insert(1, "models", [board.seeds[str(model)] for model in board.frame.index])
            for name in board.spread:
                frame[f"{name} sd"] = board.spread[name].to_numpy()
        for position, (name, value) in enumerate(board.facts.items()):
            frame.insert(position, name, value)
        frames.append(frame)
    if not frames:
        return ""
    whole = pd.concat(frames, ignore_index=True)
    text = whole.select_dtypes(["object", "string"]).columns
    whole[text] = whole[text].map(lambda value: as_cell(value) if isinstance(value, str) else value)
    return str(whole.rename(columns=as_cell).to_csv(index=False, lineterminator="\n"))


def as_markdown(boards: Sequence[Board], ranks: Sequence[dict[str, int] | None]) -> str:
    parts = []
    for board, rank in zip(boards, ranks, strict=True):
        head, rows = _cells(board, rank, markdown, ("**", "**"))
        lines = [
            f"### {markdown(board.title)}",
            "",
            f"| {' | '.join(head)} |",
            f"|{'---|' + '---:|' * (len(head) - 1)}",
        ]
        parts.append("\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n")
    return "\n".join(parts)


def as_latex(boards: Sequence[Board], ranks: Sequence[dict[str, int] | None]) -> str:
    """One booktabs table a board."""
    parts = []
    for board, rank in zip(boards, ranks, strict=True):
        head, rows = _cells(board, rank, _latex, ("\\textbf{", "}"))
        lines = [
            f"% {printable(board.title)}",
            f"\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
            "\\toprule",
            f"{' & '.join(head)} \\\\",
            "\\midrule",
            *(f"{' & '.join(row)} \\\\" for row in rows),
            "\\bottomrule",
            "\\end{tabular}",
        ]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _cells(
    board: Board, rank: dict[str, int] | None, escape: Callable[[str], str], mark: tuple[str, str]
) -> tuple[list[str], list[list[str]]]:
    """Header and rows, all text escaped for the format, the best of each column between the two marks."""
    columns = list(board.frame.columns)
    rows = []
    for name in board.frame.index:
        model = str(name)
        values = [
            f"{mark[0]}{escape(cell(board, model, column))}{mark[1]}"
            if is_best(board, model, column)
            else escape(cell(board, model, column))
            for column in columns
        ]
        extra = [] if rank is None else [str(rank[model])]
        extra += [str(board.seeds[model])] if board.seeds else []
        rows.append([escape(model), *extra, *values])
    kind = "method" if board.seeds else "model"
    head = [kind, *([] if rank is None else ["rank"]), *(["models"] if board.seeds else []), *map(escape, columns)]
    return head, rows


def _latex(text: str) -> str:
    escaped = re.sub(r"[\\~^&%$#_{}]", lambda found: _LATEX_SPECIAL[found[0]], printable(text))
    return escaped.replace("±", "$\\pm$")


def as_json(boards: Sequence[Board], ranks: Sequence[dict[str, int] | None]) -> str:
    content = [
        {
            **board.facts,
            "sort": board.sort,
            "models": [
                {
                    "model": str(model),
                    "method": board.methods[str(model)],
                    **({} if rank is None else {"rank": rank[str(model)]}),
                    "metrics": dict(row.items()),
                    **_spread(board, str(model)),
                }
                for model, row in board.frame.iterrows()
            ],
        }
        for board, rank in zip(boards, ranks, strict=True)
    ]
    return json_text(content)


def _spread(board: Board, model: str) -> dict[str, object]:
    if board.spread is None:
        return {}
    deviations = board.spread.loc[model]
    return {
        "models": board.seeds[model],
        "standard_deviation": {str(name): value for name, value in deviations.items()},
    }
