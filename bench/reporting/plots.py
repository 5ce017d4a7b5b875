"""The plots of `bench plot`: one board of the leaderboard as a picture for a paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import matplotlib as mpl
import pandas as pd
from matplotlib import font_manager
from matplotlib.figure import Figure

from bench.core.errors import BenchError
from bench.core.files import write_atomically
from bench.leaderboard.best_known import is_external, lowered_rows
from bench.leaderboard.boards import Board, make_boards
from bench.leaderboard.comparable import COMPARABLE
from bench.leaderboard.evidence.doubts import board_doubts
from bench.leaderboard.table import of_newest_versions, read_leaderboard, select_rows
from bench.reporting.curve_figures import curves_figure, pareto_figure, robustness_figure
from bench.reporting.figures import figure_bytes, require_picture

Kind = Literal["robustness", "stability", "pareto"]
_BESIDE_VERSION = [name for name in COMPARABLE if name not in ("suite_version", "suite_sha256")]


def draw_plot(
    kind: Kind,
    leaderboard: Path,
    output: Path,
    *,
    dataset: str | None,
    suite: str | None,
    models: Sequence[str],
    table: str = "",
    columns: tuple[str, str] = ("clean", "union"),
    width: float = 6.75,
    font: str = "serif",
    font_size: float = 8.0,
) -> tuple[str, list[str]]:
    """Draw one board into `output` (.pdf, .png or .svg); its title, and what rows say that their evidence does not.

    Of boards that differ in the version of their suite alone it is the newest.

    Args:
        models: names or wildcards; none are all.
        table: a part of the board's title.
        columns: of `pareto`, across and up.
        width: in inches: 3.25 is a column of most two-column papers, 6.75 their whole width.

    Raises:
        BenchError: the rows are of several boards, or have nothing to draw, or the font is not installed.
    """
    picture = require_picture(output)
    installed = (*font_manager.font_family_aliases, *font_manager.get_font_names())
    if font.casefold() not in (name.casefold() for name in installed):
        raise BenchError(f"no font {font!r} is installed; use serif, sans-serif or monospace, or install it.")
    rows = of_newest_versions(
        select_rows(read_leaderboard(leaderboard), dataset=[dataset], suite=[suite], model=models)
    )
    every = make_boards(rows)
    newest: dict[tuple[object, ...], Board] = {}  # make_boards has a suite's newest version first
    for board in (one for one in every if table in one.title):
        newest.setdefault(tuple(board.shared[name] for name in _BESIDE_VERSION), board)
    boards = list(newest.values())
    if len(boards) != 1:
        found = "; ".join(board.title for board in (boards or every)[:6])
        message = f"these are {len(boards)} tables of {len(every)} ({found}); name one."
        raise BenchError(message, option=("dataset", "suite", "table"))
    with mpl.rc_context({"font.family": font, "font.size": font_size, "axes.titlesize": "medium"}):
        figure = _figure(kind, boards[0], rows, columns, width=width)
        write_atomically(output, figure_bytes(figure, picture))
    return boards[0].title, board_doubts(leaderboard, rows)


def _figure(kind: Kind, board: Board, rows: pd.DataFrame, columns: tuple[str, str], *, width: float) -> Figure:
    if kind == "pareto":
        return pareto_figure(board, columns, width=width)
    own = rows[rows["run_id"].isin(board.runs.values()) & ~is_external(rows)]
    (rows, _), models = lowered_rows(own, rows), list(board.runs)
    if kind == "robustness":
        chosen = one_attack(rows)
        if not (chosen["metric"] == "robust_accuracy").any():
            raise BenchError(f"{board.title} has no robust accuracies to draw.")
        return robustness_figure(chosen, models, width=width)
    named = rows["metric"].str.startswith(("stability/", "saps/")) & rows["eps"].notna()
    chosen = rows[named & (rows["prominence"] == "headline")]
    if chosen.empty:
        raise BenchError(f"{board.title} has no stability to draw; attribution_stability has.")
    return curves_figure(chosen, models, width=width)


def one_attack(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows without robust accuracies under single attacks, where there are those under the worst of several."""
    robust = rows["metric"] == "robust_accuracy"
    worst = robust & (rows["attack"] == "worst")
    return rows[~robust | worst] if worst.any() else rows
