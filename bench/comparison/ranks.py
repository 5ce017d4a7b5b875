"""Ranks and seed groups of a board, from the evidence of its runs."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.comparison.evidence import row_values
from bench.core.errors import BenchError
from bench.leaderboard.evidence.finished_runs import Run
from bench.leaderboard.evidence.manifest import read_manifest
from bench.leaderboard.metrics import ExampleValues, MetricKey
from bench.leaderboard.pivot import Board
from bench.leaderboard.statistics.ranking import rank_with_ties
from bench.training import make_recipe
from bench.training.trainer import describe_recipe

logger = logging.getLogger(__name__)


def board_ranks(board: Board, rows: pd.DataFrame, leaderboard: Path) -> dict[str, int]:
    """Rank of every model in the column the board is sorted by, with ties; see bench.leaderboard.statistics.ranking.

    Raises:
        BenchError: the evidence of a run is missing or damaged, or does not have this metric example by example.
    """
    key = board.keys[board.sort]
    return rank_with_ties(
        {model: _of_metric(leaderboard, run, rows[rows["run_id"] == run], key) for model, run in board.runs.items()}
    )


def run_ranks(leaderboard: Path, runs: Sequence[Run], key: MetricKey) -> dict[str, int]:
    """As `board_ranks`, for a table of the page; empty where a run's evidence cannot be read."""
    try:
        return rank_with_ties({run.model: _of_metric(leaderboard, run.run_id, run.rows, key) for run in runs})
    except BenchError as error:
        logger.info("no ranks: %s", error)
        return {}


def _of_metric(leaderboard: Path, run_id: str, rows: pd.DataFrame, key: MetricKey) -> ExampleValues:
    """A run's metric example by example."""
    found = row_values(leaderboard / "runs" / run_id, rows).get(key)
    if found is None:
        raise BenchError(f"the evidence of {run_id} does not have {key} example by example.")
    return found


def seed_groups(board: Board, leaderboard: Path) -> dict[str, str]:
    """Model -> its method; models of one method that were trained with other settings than the first keep their id.

    What differs by the training seed alone is one group. Cards in the runs' manifests say so; a model without a card
    of `bench train` stands alone.
    """
    names: dict[str, str] = {}
    groups: dict[str, str] = {}
    for model in sorted(board.runs, key=lambda name: (board.methods[name] != name, name)):
        training = card_of(leaderboard, board.runs[model]).get("training")
        if training is None:
            groups[model] = model
            continue
        digest = _settings(training, str(board.facts["dataset"]))
        if digest not in names:
            names[digest] = board.methods[model] if board.methods[model] not in names.values() else model
        groups[model] = names[digest]
    return groups


def card_of(leaderboard: Path, run_id: str) -> dict[str, Any]:
    """The model's card as a run's manifest has it; none, with a warning, where that cannot be read."""
    try:
        card: dict[str, Any] = read_manifest(leaderboard / "runs" / run_id).get("card", {})
    except BenchError as error:
        logger.warning("%s", error)
        return {}
    return card


def _settings(training: dict[str, Any], dataset: str) -> str:
    """Everything about a training but its seed; parameters that came later count as their defaults."""
    given = {**training["parameters"], **training["schedule"]}
    try:
        described = describe_recipe(make_recipe(training["recipe"], dataset, given))
    except BenchError:  # a recipe of another version, or of a plug-in that is not here
        described = given
    return json.dumps([training["recipe"], described, training.get("source_sha256")], sort_keys=True)
