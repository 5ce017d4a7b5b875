"""Ranks that a checkout comes with are shown only for the very evidence that they were found for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.comparison import ranks
from bench.core.errors import BenchError
from bench.leaderboard.boards import Board, make_boards
from bench.leaderboard.table import read_leaderboard, select_rows

LEADERBOARD = Path(__file__).parents[2] / "leaderboard"


def another_value(board: Board) -> Board:
    first, *others = board.rows
    cells = [cell and replace(cell, value=cell.value + 1e-6) for cell in first.cells]
    return replace(board, rows=(replace(first, cells=tuple(cells)), *others))


def test_shipped_ranks_are_shown_without_any_test_and_not_where_a_value_or_the_evidence_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = select_rows(read_leaderboard(LEADERBOARD), dataset=["cifar10"], suite=["autoattack"])
    (board,) = make_boards(rows)
    monkeypatch.setattr(ranks, "_ranks", lambda *_: {"problem": "tested"})
    monkeypatch.setattr(ranks, "remembered", lambda _, __, find: find())
    shown = ranks.ranked_board(board, rows, LEADERBOARD)
    assert {row.rank for row in shown.rows} > {1}
    for changed, folder in ((another_value(board), LEADERBOARD), (board, tmp_path)):
        with pytest.raises(BenchError, match="tested"):
            ranks.ranked_board(changed, rows, folder)
