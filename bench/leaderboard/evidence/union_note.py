"""The radii that a union over norms is over."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bench.core.errors import BenchError
from bench.leaderboard.evidence.remembered import file_digests, remembered
from bench.leaderboard.labels import balls


def union_note(leaderboard: Path, run_id: str, metrics: Iterable[str]) -> str:
    """What a title adds where a union over norms is among the metrics: its radii, as the run's manifest has them."""
    if "union_accuracy" not in metrics:
        return ""
    rests_on = file_digests(leaderboard, [run_id])
    radii = remembered("radii", rests_on, lambda: _reference(leaderboard / "runs" / run_id))
    return f", union of {balls(radii)}" if radii else ""


def _reference(folder: Path) -> dict[str, float]:
    from bench.leaderboard.evidence.manifest import read_manifest  # takes long, and is remembered

    try:
        manifest = read_manifest(folder)
    except BenchError:
        return {}
    return manifest.suite.reference(manifest.config.dataset)
