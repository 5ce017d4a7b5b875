"""The radii that a union over norms is over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from bench.core.errors import BenchError
from bench.leaderboard.evidence.remembered import file_digests, remembered
from bench.leaderboard.labels import balls


def union_radii(leaderboard: Path, run_id: str, metrics: Iterable[str]) -> dict[str, float]:
    """Norm -> radius of the union, as the run's manifest has them; none where a run has no such metric."""
    if "union_accuracy" not in metrics:
        return {}
    return remembered("radii", file_digests(leaderboard, [run_id]), lambda: _reference(leaderboard / "runs" / run_id))


def union_note(radii: Mapping[str, float]) -> str:
    """What a title adds where a union over norms is among the metrics."""
    return f", union of {balls(radii)}" if radii else ""


def _reference(folder: Path) -> dict[str, float]:
    from bench.leaderboard.evidence.manifest import read_manifest  # takes long, and is remembered

    try:
        manifest = read_manifest(folder)
    except BenchError:
        return {}
    return manifest.suite.reference(manifest.config.dataset)
