"""Models of one method that differ by the training seed alone, as the cards in their runs' manifests say."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from bench.catalog.cards import ModelCard, Training
from bench.core.errors import BenchError
from bench.leaderboard.boards import Board
from bench.leaderboard.evidence.manifest import read_manifest
from bench.training import make_recipe
from bench.training.trainer import describe_recipe

logger = logging.getLogger(__name__)


def seed_groups(board: Board, leaderboard: Path) -> dict[str, str]:
    """Model -> its method; models of one method that were trained with other settings than the first keep their id.

    What differs by the training seed alone is one group. Cards in the runs' manifests say so; a model without a card
    of `bench train` stands alone.
    """
    names: dict[str, str] = {}
    groups: dict[str, str] = {}
    methods = {row.name: row.method for row in board.rows}
    for model in sorted(methods, key=lambda name: (methods[name] != name, name)):
        card = card_of(leaderboard, board.runs[model])
        if card is None or card.training is None:
            groups[model] = model
            continue
        digest = _settings(card.training, str(board.shared["dataset"]))
        if digest not in names:
            names[digest] = methods[model] if methods[model] not in names.values() else model
        groups[model] = names[digest]
    return groups


def card_of(leaderboard: Path, run_id: str) -> ModelCard | None:
    """The model's card as a run's manifest has it; None, with a warning, where that cannot be read."""
    try:
        return read_manifest(leaderboard / "runs" / run_id).card
    except BenchError as error:
        logger.warning("%s", error)
        return None


def _settings(training: Training, dataset: str) -> str:
    """Everything about a training but its seed; parameters that came later count as their defaults."""
    given = {**training.parameters, **training.schedule}
    try:
        described = describe_recipe(make_recipe(training.recipe, dataset, given))
    except BenchError:  # a recipe of another version, or of a plug-in that is not here
        described = given
    return json.dumps([training.recipe, described, training.source_sha256], sort_keys=True)
