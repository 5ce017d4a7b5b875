"""Merging leaderboards that several machines wrote."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bench.core.errors import BenchError
from bench.core.files import clear_disk_errors
from bench.leaderboard.rows import COLUMNS
from bench.leaderboard.table import FILE_NAME, append_rows, read_leaderboard


@dataclass(frozen=True, slots=True)
class Merged:
    """What one source gave: runs added, runs that were there already."""

    added: int
    known: int


def merge_leaderboards(sources: Sequence[Path], into: Path, but: Collection[str] = ()) -> list[Merged]:
    """Append the rows of `sources` whose run ids neither `into` nor `but` has, and copy their evidence.

    Everything is read and compared before anything is written.

    Raises:
        BenchError: a source is no leaderboard, its evidence has links, or two leaderboards have rows of one run id that
            differ; the message names the run and what differs, and nothing has been written.
    """
    known = _runs(into) if (into / "leaderboard.csv").is_file() else {}
    plans: list[tuple[Path, dict[str, pd.DataFrame]]] = []
    outcomes = []
    for source in sources:
        own = {run_id: rows for run_id, rows in _runs(source).items() if run_id not in but}
        for run_id in own.keys() & known.keys():
            _require_same(run_id, known[run_id], own[run_id], source)
        new = {run_id: rows for run_id, rows in own.items() if run_id not in known}
        for path in (source / FILE_NAME, source / "runs", *(source / "runs" / run_id for run_id in new)):
            _refuse_links(path)
        outcomes.append(Merged(len(new), len(own) - len(new)))
        plans.append((source, new))
        known |= new
    for source, new in plans:
        for run_id, rows in new.items():
            _copy_evidence(source / "runs" / run_id, into / "runs" / run_id)
            append_rows(into, [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")])
    return outcomes


def _runs(folder: Path) -> dict[str, pd.DataFrame]:
    runs = read_leaderboard(folder).groupby("run_id", sort=False)
    return {str(run_id): rows.reset_index(drop=True) for run_id, rows in runs}


def _require_same(run_id: str, ours: pd.DataFrame, theirs: pd.DataFrame, source: Path) -> None:
    if ours.equals(theirs):
        return
    if len(ours) != len(theirs):
        detail = f"{len(ours)} rows against {len(theirs)}"
    else:
        differs = (ours != theirs) & ~(ours.isna() & theirs.isna())
        detail = f"they differ in {', '.join(name for name in COLUMNS if differs[name].any())}"
    raise BenchError(f"run {run_id} of {source} conflicts with the rows that are there: {detail}; nothing was merged.")


def _refuse_links(source: Path) -> None:
    """What a link leads to is not the source's to give away, and what a pipe or a device holds has no end."""
    for path in (source, *(source.rglob("*") if source.parent.name == "runs" else ())):
        if path.is_symlink():
            raise BenchError(f"{path} is a link; evidence is copied only as files of its own; nothing was merged.")
        if path.exists() and not path.is_file() and not path.is_dir():
            raise BenchError(f"{path} is no regular file; evidence is copied only as such; nothing was merged.")


def _copy_evidence(source: Path, target: Path) -> None:
    """By way of a hidden folder, so that a stop leaves no half of it."""
    if not source.is_dir() or target.exists():
        return
    hidden = target.with_name(f".{target.name}.merging")
    with clear_disk_errors(target):
        shutil.rmtree(hidden, ignore_errors=True)
        shutil.copytree(source, hidden, ignore=shutil.ignore_patterns(".lock"))
        hidden.replace(target)
