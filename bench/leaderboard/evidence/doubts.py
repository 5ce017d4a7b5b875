"""What the rows of leaderboard.csv say that the evidence of their runs does not: a file edited by hand is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.core.errors import BenchError
from bench.core.files import sha256_file
from bench.leaderboard.evidence.answers import may_be_same
from bench.leaderboard.evidence.remembered import file_digests, remembered
from bench.leaderboard.metrics import Columns, keys_of
from bench.leaderboard.rows import run_columns
from bench.leaderboard.table import FILE_NAME, as_written

if TYPE_CHECKING:
    from bench.leaderboard.evidence.manifest import Manifest

_MOST_NAMED = 3
_CHECKED = ("value", "ci_low", "ci_high", "n_examples", "direction", "unit", "prominence")


def board_doubts(leaderboard: Path, rows: pd.DataFrame) -> list[str]:
    """One line for each run whose rows do not match its evidence; a run without a folder has none to be doubted by.

    `rows` are all of some runs, as `read_leaderboard` gives them.

    Rows are compared with the manifest, and the digest of the records with the one that it names; once, as long as
    neither changes.
    """
    run_ids = rows["run_id"].unique().tolist()
    rests_on: dict[str, Any] = {"folder": str(leaderboard), "rows": sha256_file(leaderboard / FILE_NAME)}
    rests_on |= {"files": file_digests(leaderboard, run_ids)}
    return remembered("doubts", rests_on, lambda: _board_doubts(leaderboard, rows))


def _board_doubts(leaderboard: Path, rows: pd.DataFrame) -> list[str]:
    from bench.leaderboard.evidence.manifest import checked_manifest  # takes long, and is remembered

    found = []
    cells = {str(name): rows[name].tolist() for name in rows}  # at once: pandas takes long for each of hundreds of runs
    for run_id, places in rows.groupby("run_id", sort=False).indices.items():
        folder = leaderboard / "runs" / str(run_id)
        if not folder.exists():
            continue
        try:
            own = {name: [one[at] for at in places] for name, one in cells.items()}
            doubt = row_doubt(checked_manifest(folder), own)
        except BenchError as error:
            doubt = str(error)
        if doubt:
            found.append(doubt)
    return found


def row_doubt(manifest: Manifest, columns: Columns) -> str:
    """What the rows of one run say that its manifest does not, in one line; empty where they agree."""
    doubts = [*_columns(manifest, columns), *_metrics(manifest, columns)]
    more = f" and {len(doubts) - _MOST_NAMED} more" if len(doubts) > _MOST_NAMED else ""
    said = "; ".join(doubts[:_MOST_NAMED])
    return f"the rows of run {next(iter(columns['run_id']))} are not what it wrote: {said}{more}" if doubts else ""


def _columns(manifest: Manifest, columns: Columns) -> Iterator[str]:
    for name, value in run_columns(manifest).items():
        written = as_written(value)
        wrong = [one for one in dict.fromkeys(map(as_written, columns[name])) if one != written]
        if wrong:
            yield f"{name} is {wrong[0]}, was {written}"


def _metrics(manifest: Manifest, columns: Columns) -> Iterator[str]:
    written = {metric.key: metric for metric in manifest.result.metrics}
    keys = keys_of(columns)
    read = dict(zip(keys, zip(*(columns[name] for name in _CHECKED), strict=True), strict=True))
    if len(read) != len(keys):
        yield "a metric comes twice"
    for key, values in read.items():
        if key not in written:
            yield f"{key} was not measured"
            continue
        for column, value in zip(_CHECKED, values, strict=True):
            now, before = as_written(value).replace("inf", ""), as_written(getattr(written[key], column))
            if now != before:
                yield f"{column} of {key} is {now or 'empty'}, was {before or 'empty'}"
    gone = len(written.keys() - read.keys())
    if gone:
        yield f"{gone} metrics are missing"


def may_be_one_net(leaderboard: Path, first: str, second: str) -> bool:
    """Whether two runs of equal weights may be of one net, as far as their evidence can be read: weights say nothing of
    what a user's program does with them."""
    from bench.leaderboard.evidence.manifest import read_manifest  # takes long

    if first == second:
        return True
    try:
        one, other = (read_manifest(leaderboard / "runs" / run) for run in (first, second))
    except BenchError:
        return True
    return one.config.program_sha256 == other.config.program_sha256 and may_be_same(one.answers, other.answers)
