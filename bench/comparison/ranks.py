"""Ranks of a board, from the evidence of its runs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

import bench
from bench.core.errors import BenchError
from bench.core.files import read_regular, sha256_bytes, sha256_file
from bench.leaderboard.boards import Board
from bench.leaderboard.evidence.remembered import file_digests, remembered
from bench.leaderboard.metrics import ExampleValues, MetricKey, keys_of
from bench.leaderboard.statistics import paired

logger = logging.getLogger(__name__)
SHIPPED = Path(bench.__file__).parents[1] / "leaderboard" / "ranks.json"
"""In a checkout; docs/make_ranks.py writes it."""


def ranked_board(board: Board, rows: pd.DataFrame, leaderboard: Path) -> Board:
    """With the rank of every model that has a value in the column the board is sorted by; see `rank_with_ties`.

    What was tested once is remembered, as long as neither the evidence nor the rows have changed; a checkout has the
    answers of the leaderboard that comes with it.

    Args:
        rows: of the leaderboard, those of the board's runs among them.

    Raises:
        BenchError: the evidence of a run is missing or damaged, or does not have this metric example by example.
    """
    rests_on = _rests_on(board, leaderboard)
    found = _shipped().get(_digest(rests_on)) or remembered("ranks", rests_on, lambda: _ranks(board, rows, leaderboard))
    if "problem" in found:
        raise BenchError(found["problem"])
    return replace(board, rows=tuple(replace(row, rank=found["ranks"].get(row.name)) for row in board.rows))


def ranked_if_tested(board: Board, rows: pd.DataFrame, leaderboard: Path) -> Board:
    """As `ranked_board`, or the board as it is where its evidence allows no test."""
    try:
        return ranked_board(board, rows, leaderboard)
    except BenchError as error:
        logger.info("no ranks: %s", error)
        return board


def shipped_ranks(boards: Iterable[Board], rows: pd.DataFrame, leaderboard: Path) -> dict[str, Any]:
    """What a checkout has of the boards' ranks; arguments as for `ranked_board`."""
    return {_digest(_rests_on(board, leaderboard)): _ranks(board, rows, leaderboard) for board in boards}


@cache
def _shipped() -> dict[str, Any]:
    """Of this checkout alone: a stranger's file would say of a stranger's evidence what it liked."""
    with suppress(OSError, ValueError):
        found = json.loads(read_regular(SHIPPED))
        return found if isinstance(found, dict) else {}
    return {}


def _digest(rests_on: dict[str, Any]) -> str:
    return sha256_bytes(json.dumps([rests_on, sha256_file(Path(paired.__file__))], sort_keys=True).encode())


def _rests_on(board: Board, leaderboard: Path) -> dict[str, Any]:
    place = board.columns.index(board.sort)
    return {
        "metric": asdict(board.sort.key),
        "runs": board.runs,
        "values": [repr(cell and cell.value) for cell in (row.cells[place] for row in board.rows)],
        "files": file_digests(leaderboard, board.runs.values()),
    }


def _ranks(board: Board, rows: pd.DataFrame, leaderboard: Path) -> dict[str, Any]:
    key = board.sort.key
    own = rows[(rows["metric"] == key.metric) & rows["run_id"].isin(board.runs.values()) & rows["value"].notna()]
    said = {run: value for run, one, value in zip(own["run_id"], keys_of(own), own["value"], strict=True) if one == key}
    try:
        values = {
            model: _of_metric(leaderboard / "runs" / run, key, said[run])
            for model, run in board.runs.items()
            if run in said  # where it is undefined on every example there is no row
        }
        ranks = paired.rank_with_ties(values)
    except BenchError as error:
        return {"problem": str(error)}
    nothing = {"problem": f"no two models have {key} on an example; sort by another column."}
    return {"ranks": ranks} if ranks else nothing


def _of_metric(folder: Path, key: MetricKey, value: float) -> ExampleValues:
    """A run's metric example by example, whose mean is the value that the leaderboard's row has."""
    from bench.comparison.evidence import agreeing, run_values  # with torch, which takes seconds

    found = run_values(folder, key).get(key)
    if found is None or not agreeing(found, value, folder):
        raise BenchError(f"the evidence of {folder.name} does not have {key} example by example.")
    return found
