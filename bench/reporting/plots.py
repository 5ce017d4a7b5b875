"""Plots of boards, results and studies: curves over the radius, Pareto fronts; `bench plot` makes them for a paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.core.errors import BenchError
from bench.core.files import write_atomically
from bench.core.threat import NORM_LABELS
from bench.leaderboard.best_known import is_external, lowered_rows
from bench.leaderboard.boards import Board, make_boards
from bench.leaderboard.comparable import COMPARABLE
from bench.leaderboard.evidence.doubts import board_doubts
from bench.leaderboard.labels import FROM_ONE, full_label, read_from_one
from bench.leaderboard.metrics import keys_of
from bench.leaderboard.table import of_newest_versions, rows_to_show
from bench.leaderboard.views import pareto_front
from bench.reporting.figures import COLOURS, LINES, cycle_colours, figure_bytes, new_figure, require_picture

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
    rows = of_newest_versions(rows_to_show(leaderboard, dataset=[dataset], suite=[suite], model=models))
    every = make_boards(rows, leaderboard=leaderboard)
    newest: dict[tuple[object, ...], Board] = {}  # make_boards has a suite's newest version first
    for board in (one for one in every if table in one.title):
        newest.setdefault(tuple(board.shared[name] for name in _BESIDE_VERSION), board)
    boards = list(newest.values())
    titles = "; ".join(board.title for board in (boards or every)[:6])
    if not boards:
        raise BenchError(f"no table has {table!r} in its title; there are: {titles}.", option="table")
    if len(boards) != 1:
        message = f"these are {len(boards)} tables of {len(every)} ({titles}); name one."
        raise BenchError(message, option=("dataset", "suite", "table"))
    with mpl.rc_context({"font.family": font, "font.size": font_size, "axes.titlesize": "medium"}):
        figure = _figure(kind, boards[0], rows, columns, width=width, leaderboard=leaderboard)
        write_atomically(output, figure_bytes(figure, picture))
    return boards[0].title, board_doubts(leaderboard, rows)


def _figure(
    kind: Kind, board: Board, rows: pd.DataFrame, columns: tuple[str, str], *, width: float, leaderboard: Path
) -> Figure:
    if kind == "pareto":
        return pareto_figure(board, columns, width=width)
    own = rows[rows["run_id"].isin(board.runs.values()) & ~is_external(rows)]
    (rows, _), models = lowered_rows(own, rows, leaderboard), list(board.runs)
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


def robustness_figure(rows: pd.DataFrame, models: Sequence[str], *, width: float | None = None) -> Figure:
    """Robust accuracy against radius, one panel a norm, one line a model from its clean accuracy on, bands of 95 %.

    Args:
        rows: of the leaderboard, one attack a model; `model` tells whose they are.
        width: of the whole, in inches, with the legend below; None: four a panel, with the legend beside.
    """
    clean = rows[rows["metric"] == "clean_accuracy"].assign(eps=0.0)
    robust = rows[rows["metric"] == "robust_accuracy"]
    norms = [norm for norm in NORM_LABELS if (robust["norm"] == norm).any()]
    panels = {NORM_LABELS[norm]: (clean, robust[robust["norm"] == norm]) for norm in norms}
    figure, axes = _line_figure(panels, models, "robust accuracy", width=width)
    for label, one in zip(panels, axes, strict=False):
        one.set(xlabel=f"{label} radius", ylim=(0, 1), **({} if width is None else {"title": ""}))
    return figure


def curves_figure(rows: pd.DataFrame, models: Sequence[str], *, width: float | None = None) -> Figure:
    """Each metric of these rows against its radius, one panel a metric and what it is of, as `robustness_figure`."""
    groups = rows.groupby(["metric", "subject", "attack", "norm"], sort=False)
    panels = dict(_panel(own) for _, own in groups)
    figure, axes = _line_figure(panels, models, "value", width=width)
    for one in axes:
        one.set(xlabel="radius")
    return figure


def _panel(rows: pd.DataFrame) -> tuple[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """The title and the rows of one metric, as people read them."""
    title, first = full_label(replace(keys_of(rows)[0], eps=None)), rows.iloc[0]
    if read_from_one(rows["value"], first["direction"], first["unit"]):
        ends = {"value": 1 - rows["value"], "ci_low": 1 - rows["ci_high"], "ci_high": 1 - rows["ci_low"]}
        title, rows = FROM_ONE + title, rows.assign(**ends)
    return title, (rows[:0], rows)


def _line_figure(
    panels: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]], models: Sequence[str], ylabel: str, *, width: float | None
) -> tuple[Figure, list[Axes]]:
    """A line a model through its rows by radius, the first of each pair before the second; bands of 95 %."""
    count = max(1, len(panels))
    size = {} if width is None else {"width": width / count, "height": max(1.8, min(2.6, 0.8 * width / count))}
    figure, axes = new_figure(count, **size)
    drawn: dict[str, Any] = {}
    for one, (title, (starts, curves)) in zip(axes, panels.items(), strict=False):
        for number, (colour, model) in enumerate(zip(cycle_colours(len(models)), models, strict=True)):
            start, curve = (part[part["model"] == model] for part in (starts, curves))
            if curve.empty or (start.empty and not starts.empty):
                continue
            points = [*start[-1:].to_dict("records"), *curve.sort_values("eps").to_dict("records")]
            radii, values, low, high = (
                [point[name] for point in points] for name in ("eps", "value", "ci_low", "ci_high")
            )
            style = LINES[number // len(COLOURS) % len(LINES)]
            drawn[model] = one.plot(radii, values, style, color=colour, marker="o", markersize=3, label=model)[0]
            one.fill_between(radii, low, high, color=colour, alpha=0.12, linewidth=0)
        one.set(ylabel=ylabel if width is None or one is axes[0] else "", title=title)
        one.grid(alpha=0.3)
    if drawn and width is None:
        figure.legend(drawn.values(), drawn, loc="outside right upper", fontsize=8, frameon=False)
    elif len(drawn) > 1:
        _legend_below(figure, list(drawn.values()), list(drawn), handle=4)
    return figure, axes


def _legend_below(figure: Figure, handles: list[Any], labels: list[str], *, handle: int) -> None:
    """A legend under everything, in as many columns as fit, the figure higher by it; `handle`: width in characters."""
    size = float(mpl.rcParams["font.size"]) / 72
    fitting = int(figure.get_figwidth() / (0.58 * size * (max(map(len, labels)) + handle + 2)))
    columns = max(1, min(len(labels), fitting))
    figure.set_figheight(figure.get_figheight() + 1.6 * size * math.ceil(len(labels) / columns))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False,
        handlelength=max(0, handle - 2), handletextpad=0.5, columnspacing=1.0,
    )  # fmt: skip


def pareto_figure(board: Board, names: tuple[str, str], *, width: float) -> Figure:
    """Two columns against each other, a point a model; those that no other beats in both are numbered and joined.

    Those over another number of images than most are numbered and named so, and not joined.
    """
    figure, (axes,) = new_figure(1, width=width, height=max(2.2, 0.75 * width))
    places = [board.place(name) for name in names]
    points = {
        row.name: tuple(
            board.columns[place].shown(cell).value for place in places if (cell := row.cells[place]) is not None
        )
        for row in board.rows
    }
    points = {name: point for name, point in points.items() if len(point) == 2}
    kept = pareto_front(board, names).rows
    front, apart = {row.name: points[row.name] for row in kept}, {row.name for row in kept if row.apart}
    others = [point for name, point in points.items() if name not in front]
    if others:
        across, up = zip(*others, strict=True)
        axes.scatter(across, up, s=12, color="0.65", label="others")
    for style, chosen in (("o-", front.keys() - apart), ("D", apart)):
        if chosen:
            joined = sorted(front[name] for name in chosen)
            axes.plot(*zip(*joined, strict=True), style, color=COLOURS[0], markersize=4, linewidth=1)
    for number, point in enumerate(front.values(), start=1):
        axes.annotate(str(number), (point[0], point[1]), xytext=(3, 3), textcoords="offset points", fontsize="small")
    words = dict.fromkeys(apart, " (other images)")
    numbered = [f"{number} {name}{words.get(name, '')}" for number, name in enumerate(front, start=1)]
    _legend_below(figure, [axes.plot([], [], " ")[0] for _ in front], numbered, handle=0)
    axes.set(xlabel=board.columns[places[0]].heading, ylabel=board.columns[places[1]].heading)
    axes.margins(x=0.15, y=0.1)
    axes.grid(alpha=0.3)
    return figure
