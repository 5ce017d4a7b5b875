"""Columns of a board that come from the models' cards: how stable their explanations are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.catalog.cards import ModelCard
from bench.catalog.models import list_models
from bench.comparison.seed_groups import card_of
from bench.core.errors import BenchError
from bench.leaderboard.boards import Board, Cell, Column, seen_from_one
from bench.leaderboard.metrics import MetricKey

_STABILITY = re.compile(r"stability (\d+/255)")


def with_stability(board: Board, names: Sequence[str], leaderboard: Path, registry: Path | None = None) -> Board:
    """The board with the columns `stability R/255` that `names` asks for and it does not have.

    They are the mean cosine of the gradient at an image and at its copy under uniform noise of that radius, measured on
    held-out training examples by `bench train` or `bench models measure`. The registry's card counts where its weights
    are those of the run, else the card in the run's manifest. A model whose card has no such figure is left out.

    Raises:
        BenchError: no model of the board has the figure.
    """
    wanted = [name for name in names if _STABILITY.fullmatch(name) and name not in [one.label for one in board.columns]]
    if not wanted:
        return board
    registered = {entry.card.name: entry.card for entry in list_models(registry=registry)}
    cards = {}
    for model, run_id in board.runs.items():
        card = card_of(leaderboard, run_id)
        known = registered.get(f"{board.shared['dataset']}/{model}")
        cards[model] = known if known and card and known.weights.sha256 == card.weights.sha256 else card
    for name in wanted:
        radius = name.removeprefix("stability ")
        rows = tuple(replace(row, cells=(*row.cells, _stability(cards[row.name], radius))) for row in board.rows)
        if all(row.cells[-1] is None for row in rows):
            raise BenchError(f"no model of {board.title} has {name} in its card; `bench models measure` writes it.")
        column = seen_from_one(Column(MetricKey(name), name, "higher", "number"), cells=(row.cells[-1] for row in rows))
        board = replace(board, columns=(*board.columns, column), rows=rows)
    return board


def _stability(card: ModelCard | None, radius: str) -> Cell | None:
    gradients = card.gradients if card else None
    value = gradients.stability.get(radius) if gradients else None
    return None if gradients is None or value is None else Cell(value, counts=(gradients.examples,))
