"""The evidence of a finished run: its manifest and records, whole and as they were written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.core.errors import BenchError
from bench.core.files import leads_out, sha256_file
from bench.leaderboard.evidence.manifest import Manifest, read_manifest
from bench.leaderboard.evidence.records import read_records

if TYPE_CHECKING:
    import pandas as pd


def checked_manifest(folder: Path) -> Manifest:
    """The manifest of a finished run whose records are those that it names.

    Raises:
        BenchError: a file is missing, unreadable, or not what the run wrote (its digest differs).
    """
    manifest = read_manifest(folder)
    path = folder / "examples.parquet"
    if manifest.status != "finished":
        raise BenchError(f"the run {folder} is not finished; run the same command again to finish it.")
    if leads_out(path, folder.parent.parent):
        raise BenchError(f"the evidence {path} is a link out of the leaderboard, which is not followed.")
    if not path.is_file():
        raise BenchError(f"the evidence {path} is missing; run the evaluation again.")
    if sha256_file(path) != manifest.result.examples_sha256:
        raise BenchError(
            f"the evidence {path} is not what the run wrote (its digest differs from the manifest's); "
            "restore it from version control or run the evaluation again."
        )
    return manifest


def read_evidence(folder: Path) -> tuple[Manifest, pd.DataFrame]:
    """Manifest and records of a finished run; raises BenchError as `checked_manifest` does."""
    return checked_manifest(folder), read_records(folder / "examples.parquet")
