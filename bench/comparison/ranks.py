"""Ranks of a board, from the evidence of its runs."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import BenchError
from bench.leaderboard.boards import Board
from bench.leaderboard.evidence.remembered import file_digests, remembered
from bench.leaderboard.metrics import ExampleValues, MetricKey, keys_of

if TYPE_CHECKING:
    import pandas as pd


def ranked_board(board: Board, rows: pd.DataFrame, leaderboard: Path) -> Board:
    """With the rank of every model in the column the board is sorted by; see bench.leaderboard.statistics.paired.

    What was tested once is remembered, as long as neither the evidence nor the rows have changed.

    Args:
        rows: of the leaderboard, those of the board's runs among them.

    Raises:
        BenchError: the evidence of a run is missing or damaged, or does not have this metric example by example.
    """
    place = board.columns.index(board.sort)
    rests_on = {
        "metric": asdict(board.sort.key),
        "runs": board.runs,
        "values": [repr(cell and cell.value) for cell in (row.cells[place] for row in board.rows)],
        "files": file_digests(leaderboard, board.runs.values()),
    }
    found = remembered("ranks", rests_on, lambda: _ranks(board, rows, leaderboard))
    if "problem" in found:
        raise BenchError(found["problem"])
    return replace(board, rows=tuple(replace(row, rank=found["ranks"][row.name]) for row in board.rows))


def _ranks(board: Board, rows: pd.DataFrame, leaderboard: Path) -> dict[str, Any]:
    from bench.leaderboard.statistics.paired import rank_with_ties

    key = board.sort.key
    own = rows[(rows["metric"] == key.metric) & rows["run_id"].isin(board.runs.values())]
    said = {run: value for run, one, value in zip(own["run_id"], keys_of(own), own["value"], strict=True) if one == key}
    try:
        return {"ranks": rank_with_ties({
            model: _of_metric(leaderboard / "runs" / run, key, said.get(run)) for model, run in board.runs.items()
        })}  # fmt: skip
    except BenchError as error:
        return {"problem": str(error)}


def _of_metric(folder: Path, key: MetricKey, value: float | None) -> ExampleValues:
    """A run's metric example by example, whose mean is the value that the leaderboard's row has."""
    from bench.comparison.evidence import agreeing, run_values  # with torch, which takes seconds

    found = run_values(folder, key).get(key)
    if found is None or value is None or not agreeing(found, value, folder):
        raise BenchError(f"the evidence of {folder.name} does not have {key} example by example.")
    return found
