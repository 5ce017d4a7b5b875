"""Ranks that a checkout comes with are shown only for the very evidence that they were found for."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from bench.cli.output.board_formats import as_csv, as_markdown
from bench.comparison import ranks
from bench.core.errors import BenchError
from bench.leaderboard.boards import Board, make_boards
from bench.leaderboard.metrics import ExampleValues, MetricKey
from bench.leaderboard.table import append_rows, read_leaderboard, select_rows
from tests.leaderboard.rows import row

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


def three(folder: Path, values: dict[str, list[float]], monkeypatch: pytest.MonkeyPatch) -> Board:
    """A ranked board of models with these values an example, one of them on none."""
    for model, own in values.items():
        known = row(model, model=model, attack="", norm="", eps=None, n_examples=10)
        sparse = {"metric": "sparseness", "subject": "grad_cam", "direction": "higher", "unit": "number"}
        mean = pd.Series(own).mean()
        append_rows(folder, [known] if math.isnan(mean) else [known, known | sparse | {"value": mean}])

    def read(run: Path, key: MetricKey, _: float) -> ExampleValues:
        return ExampleValues(key, pd.Series(values[run.name]), "higher", "number")

    monkeypatch.setattr(ranks, "_of_metric", read)
    monkeypatch.setattr(ranks, "remembered", lambda _, __, find: find())
    rows = read_leaderboard(folder)
    (board,) = make_boards(rows, "sparseness grad_cam")
    return ranks.ranked_board(board, rows, folder)


def test_a_model_for_which_the_metric_is_undefined_takes_no_rank_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"good": [0.9] * 10, "bad": [0.1] * 10, "never": [math.nan] * 10}
    board = three(tmp_path / "one", values, monkeypatch)
    assert {one.name: one.rank for one in board.rows} == {"good": 1, "bad": 2, "never": None}
    assert "| never |  |" in as_markdown([board])
    assert ",never,," in as_csv([board])
    apart = {"good": [0.9] * 5 + [math.nan] * 5, "bad": [math.nan] * 5 + [0.1] * 5}
    with pytest.raises(BenchError, match="no two models have sparseness grad_cam on an example"):
        three(tmp_path / "two", apart, monkeypatch)
    with pytest.raises(BenchError, match="sparseness grad_cam is infinite for an example"):
        three(tmp_path / "three", values | {"bad": [math.inf] * 10}, monkeypatch)
