"""leaderboard.csv: tidy, append-only, one row per metric, safe under several processes at once."""

from __future__ import annotations

import csv
import io
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import BenchError
from bench.core.files import clear_disk_errors, locked, read_regular, sweep, write_atomically
from bench.leaderboard.rows import COLUMNS, checked_rows

if TYPE_CHECKING:
    import pandas as pd

FILE_NAME = "leaderboard.csv"
SCHEMA_VERSION = 3
_SINCE_3 = ("dependencies_sha256", "commit", "precision")
_COLUMNS_2 = tuple(name for name in COLUMNS if name not in _SINCE_3)
_COLUMNS_1 = _COLUMNS_2[:-1]
"""Version 1 had no column for its version."""
_SEARCH = re.compile(r"(.*), (\w+) search")
"""Version 2's device, where the search was in less than float32."""
_FORMULA_STARTS = ("=", "+", "-", "@")
"""A spreadsheet takes text that begins so for a formula; a quote before it makes it text, and goes in reading."""
_NUMBERS = ("eps", "value", "ci_low", "ci_high", "seconds")
_COUNTS = ("suite_version", "n_examples", "seed", "schema_version")


def append_rows(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Append a run's rows to `folder/leaderboard.csv`, all or none, under a lock that all processes share.

    A run id that the file already has is not appended again, so that a run which was killed between its rows and its
    last word can be resumed without doubling them.

    Raises:
        BenchError: the file has foreign columns, a row could not be read again, or the folder cannot be written; the
            file is then as it was.
    """
    try:
        checked_rows([{**row, "schema_version": SCHEMA_VERSION} for row in rows])
    except ValueError as error:
        raise BenchError(f"a result cannot be written to {folder / FILE_NAME}: {error}.") from error
    with clear_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"):
            sweep(folder)
            path = folder / FILE_NAME
            before = _checked_content(path)
            known = {cells[0] for cells in _cells(before, path) if cells}
            rows = [row for row in rows if row["run_id"] not in known]
            write_atomically(path, (before + _format(rows, header=not before)).encode())


def check_leaderboard(folder: Path) -> None:
    """Raise BenchError if rows could not be appended to the leaderboard in `folder`; called before work starts."""
    _checked_content(folder / FILE_NAME)
    with clear_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # of a name of its own: several processes look at once
            pass


def read_leaderboard(folder: Path) -> pd.DataFrame:
    """All rows, typed; raises BenchError when there is no leaderboard or it is not one of ours."""
    import pandas as pd

    path = folder / FILE_NAME
    if not path.is_file():
        raise BenchError(
            f"there is no {path}; make one with `bench run`, or name another folder.", option="leaderboard"
        )
    lines = [cells for cells in _cells(_checked_content(path), path)[1:] if cells]
    try:
        rows = checked_rows([dict(zip(COLUMNS, map(_unescaped, cells), strict=True)) for cells in lines])
    except ValueError as error:
        raise BenchError(f"{path} has a damaged row ({error}); restore it from version control.") from error
    types = dict.fromkeys(COLUMNS, "str") | dict.fromkeys(_NUMBERS, "float64") | dict.fromkeys(_COUNTS, "int64")
    return pd.DataFrame.from_records(rows, columns=list(COLUMNS)).astype(types)


def _unescaped(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA_STARTS) else cell


def _cells(content: str, path: Path) -> list[list[str]]:
    try:
        return list(csv.reader(io.StringIO(content)))
    except csv.Error as error:
        raise BenchError(f"{path} has a damaged row ({error}); restore it from version control.") from error


def _checked_content(path: Path) -> str:
    try:
        content = read_regular(path).decode("utf-8-sig")  # spreadsheets put a byte-order mark before it
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except UnicodeDecodeError as error:
        raise BenchError(
            f"{path} is not a text file; move it away or name another folder.", option="leaderboard"
        ) from error
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror}.") from error
    header, *lines = _cells(content, path) or [[]]
    _refuse_the_future(header, lines, path)
    if tuple(header) in (_COLUMNS_1, _COLUMNS_2):
        content, header = _migrated(header, lines, path), list(COLUMNS)
    if content and tuple(header) != COLUMNS:
        unknown = [name for name in header if name not in COLUMNS]
        missing = [name for name in COLUMNS if name not in header]
        detail = "; ".join(
            part
            for part in (
                f"foreign: {', '.join(unknown)}" if unknown else "",
                f"missing: {', '.join(missing)}" if missing else "",
            )
            if part
        )
        raise BenchError(
            f"{path} does not have the leaderboard's columns ({detail or 'another order'}); "
            "move it away or name another folder.",
            option="leaderboard",
        )
    return content if not content or content.endswith("\n") else content + "\n"


def _format(rows: Sequence[dict[str, Any]], *, header: bool) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=COLUMNS, lineterminator="\n", extrasaction="raise")
    if header:
        writer.writeheader()
    writer.writerows(
        {name: as_cell(SCHEMA_VERSION if name == "schema_version" else row[name]) for name in COLUMNS} for row in rows
    )
    return stream.getvalue()


def as_cell(value: Any) -> str:
    """As `as_written`, text so that no spreadsheet takes it for a formula."""
    text = as_written(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA_STARTS) else text


def as_written(value: Any) -> str:
    """A value as the file has it: numbers with six digits, nothing where there is no number."""
    if value is None or value != value:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _refuse_the_future(header: Sequence[str], lines: Sequence[Sequence[str]], path: Path) -> None:
    """Raise BenchError if any row is of a version that this package does not know."""
    if "schema_version" not in header:
        return
    column = list(header).index("schema_version")
    versions = {cells[column] for cells in lines if len(cells) > column}
    newer = sorted(int(one) for one in versions if re.fullmatch("[0-9]{1,9}", one) and int(one) > SCHEMA_VERSION)
    if newer:
        raise BenchError(
            f"{path} is of version {newer[-1]}, this RIBench knows versions up to {SCHEMA_VERSION}; "
            "upgrade with pip install --upgrade ribench."
        )


def _migrated(header: Sequence[str], lines: Sequence[Sequence[str]], path: Path) -> str:
    """A file of an older version as this version has it; the next write puts it on the disk."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=COLUMNS, lineterminator="\n")
    writer.writeheader()
    for cells in lines:
        if cells and len(cells) != len(header):
            raise BenchError(f"{path} has a damaged row of run {cells[0][:80]!r}; restore it from version control.")
        if cells:
            row = dict(zip(header, cells, strict=True))
            found = _SEARCH.fullmatch(row["device"])
            row["device"], row["precision"] = found.groups() if found else (row["device"], "float32")
            writer.writerow(dict.fromkeys(_SINCE_3, "") | row | {"schema_version": SCHEMA_VERSION})
    return stream.getvalue()


def of_newest_versions(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows without those of an older version of a suite under which the model has been judged in a newer."""
    newest = rows.groupby(["model", "dataset", "split", "suite"])["suite_version"].transform("max")
    return rows[rows["suite_version"] == newest]
