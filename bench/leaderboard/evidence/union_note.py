"""The radii that a union over norms is over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from bench.core.errors import BenchError
from bench.leaderboard.evidence.remembered import file_digests, remembered
from bench.leaderboard.labels import balls


def union_radii(leaderboard: Path, run_ids: Iterable[str], metrics: Iterable[str]) -> dict[str, float]:
    """Norm -> radius of the union of comparable runs, by the first manifest there is; none without such a metric."""
    folders = (leaderboard / "runs" / run_id for run_id in run_ids if "union_accuracy" in metrics)
    found = (remembered("radii", file_digests(leaderboard, [one.name]), partial(_reference, one)) for one in folders)
    return next(filter(None, found), {})


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
