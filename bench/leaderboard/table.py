"""leaderboard.csv: tidy, append-only, one row per metric, safe under several processes at once."""

from __future__ import annotations

import csv
import io
import operator
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.core.errors import BenchError
from bench.core.files import (
    clear_disk_errors,
    csv_text,
    locked,
    read_regular,
    require_writable,
    sweep,
    write_atomically,
)
from bench.core.names import select_names
from bench.leaderboard.migration import migrated_rows
from bench.leaderboard.rows import (
    COLUMNS,
    DEFAULTS,
    DIGEST_COLUMNS,
    DTYPES,
    SCHEMA_VERSION,
    checked_columns,
    checked_rows,
    short_digest,
)

FILE_NAME = "leaderboard.csv"
_SINCE_4 = {"subject", "direction", "unit", "prominence"}
_FORMULA_STARTS = ("=", "+", "-", "@")
"""A spreadsheet takes text that begins so for a formula; a quote before it makes it text, and goes in reading."""


def append_rows(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Append a run's rows to `folder/leaderboard.csv`, all or none, under a lock that all processes share.

    Rows of a run id that the file already has are replaced: a run that was stopped between its rows and its last word,
    and resumed, has another time and perhaps another machine in them, as its manifest then has.

    Raises:
        BenchError: the file has foreign columns, a row could not be read again, or the folder cannot be written; the
            file is then as it was.
    """
    try:
        rows = checked_rows([{**row, "schema_version": SCHEMA_VERSION} for row in rows])
    except ValueError as error:
        raise BenchError(f"a result cannot be written to {folder / FILE_NAME}: {error}.") from error
    with clear_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"):
            sweep(folder)
            path = folder / FILE_NAME
            before, lines = _content(path)
            new = [[as_cell(row[name], name) for name in COLUMNS] for row in rows]
            replaced = {cells[0] for cells in new}
            kept = [cells for cells in lines if cells[0] not in replaced]
            if not before or len(kept) < len(lines):
                before = csv_text([COLUMNS, *kept])
            write_atomically(path, (before + csv_text(new)).encode())


def check_leaderboard(folder: Path) -> None:
    """Raise BenchError if rows could not be appended to the leaderboard in `folder`; called before work starts."""
    _content(folder / FILE_NAME)
    require_writable(folder / FILE_NAME)


def read_leaderboard(folder: Path) -> pd.DataFrame:
    """All rows, typed; raises BenchError when there is no leaderboard or it is not one of ours."""
    path = folder / FILE_NAME
    if not path.exists():
        raise BenchError(
            f"there is no {path}; make one with `bench run`, or name another folder.", option="leaderboard"
        )
    _, lines = _content(path)
    try:
        columns = checked_columns(lines, _unescaped)
    except ValueError as error:
        raise BenchError(f"{path} has a damaged row ({error}); restore it from version control.") from error
    return pd.DataFrame(columns, columns=list(COLUMNS)).astype(DTYPES)


def rows_to_show(folder: Path, **wanted: Sequence[str | None]) -> pd.DataFrame:
    """Those of `read_leaderboard` that `select_rows` leaves; raises BenchError as both do, and where there are none."""
    rows = select_rows(read_leaderboard(folder), **wanted)
    if rows.empty:
        raise BenchError(f"the leaderboard in {folder} has no rows yet; make some with `bench run`.")
    return rows


def select_rows(rows: pd.DataFrame, **wanted: Sequence[str | None]) -> pd.DataFrame:
    """The rows whose columns match one of these names or wildcards each; None among them stands for no wish.

    A suite may be named with its version, as cross_norm@3.

    Raises:
        BenchError: a name that no row has, with what is near it.
    """
    for column, names in wanted.items():
        patterns = [name for name in names if name is not None]
        if not patterns or rows.empty:
            continue
        values = rows[column]
        if column == "suite" and any("@" in one for one in patterns):
            values = values + "@" + rows["suite_version"].astype(str)
            patterns = [one if "@" in one else f"{one}@*" for one in patterns]
        kept = select_names(patterns, sorted(set(values)), column.replace("dataset", "data set"))
        rows = rows[values.isin(kept)]
    return rows


def of_newest_versions(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows without the runs of an older version of a suite where the model has been judged in a newer one, on no
    fewer images."""
    judged = ["model", "dataset", "split", "suite"]
    most = rows.groupby([*judged, "suite_version"])["n_examples"].max().sort_index(ascending=False)
    newer = most.groupby(level=judged).cummax().groupby(level=judged).shift(fill_value=-1)
    newest = newer.reindex(pd.MultiIndex.from_frame(rows[[*judged, "suite_version"]])).to_numpy()
    # a metric of the correctly classified examples alone has fewer; a run's number is its largest
    return rows[rows.groupby("run_id")["n_examples"].transform("max").to_numpy() > newest]


def as_cell(value: Any, column: str = "") -> str:
    """As `as_written`, text so that no spreadsheet takes it for a formula."""
    text = as_written(value, column)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA_STARTS) else text


def as_written(value: Any, column: str = "") -> str:
    """A value as the file has it: nothing where there is no number, a radius whole, other numbers with six digits."""
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        return repr(value) if column == "eps" else f"{value:.6g}"
    return str(value)


def _unescaped(cell: str) -> str:
    return cell[1:] if cell[:1] == "'" and cell[1:2] in _FORMULA_STARTS else cell


def _content(path: Path) -> tuple[str, list[list[str]]]:
    """The file's text, empty where this version would write another, and the cells of its rows in its columns.

    Both are empty where there is no file.
    """
    try:
        content = read_regular(path).decode("utf-8-sig")  # spreadsheets put a byte-order mark before it
    except (FileNotFoundError, NotADirectoryError):
        return "", []
    except (IsADirectoryError, UnicodeDecodeError) as error:
        what = "a folder" if isinstance(error, IsADirectoryError) else "not a text file"
        raise BenchError(f"{path} is {what}; move it away or name another folder.", option="leaderboard") from error
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror}.") from error
    try:
        header, *lines = list(csv.reader(io.StringIO(content))) or [[]]
    except csv.Error as error:
        raise BenchError(f"{path} has a damaged row ({error}); restore it from version control.") from error
    lines = [cells for cells in lines if cells]
    _refuse_the_future(header, lines, path)
    odd = next((cells for cells in lines if len(cells) != len(header)), None)
    if odd is not None:
        reader = csv.reader(io.StringIO(content))
        number = next(reader.line_num for cells in reader if cells == odd)
        raise BenchError(
            f"{path} has a damaged row (line {number}, run {odd[0][:80]!r}: {len(odd)} cells, not {len(header)}); "
            "restore it from version control."
        )
    if not content or (tuple(header) == COLUMNS and not any(cells[-1] == "4" for cells in lines)):
        return content if not content or content.endswith("\n") else content + "\n", lines
    _require_columns(header, path)
    return "", _of_this_version(header, lines, path.parent)


def _require_columns(header: Sequence[str], path: Path) -> None:
    """Raise BenchError unless the columns are this version's, in their order, or those of an older one."""
    unknown = [name for name in header if name not in COLUMNS]
    missing = [name for name in COLUMNS if name not in header]
    later = _SINCE_4 | DEFAULTS.keys() | {"schema_version"}
    if list(header) == [name for name in COLUMNS if name in header] and later.issuperset(missing):
        return
    found = {"foreign": unknown, "missing": missing}
    detail = "; ".join(f"{what}: {', '.join(names)}" for what, names in found.items() if names) or "another order"
    raise BenchError(
        f"{path} does not have the leaderboard's columns ({detail}); move it away or name another folder.",
        option="leaderboard",
    )


def _of_this_version(header: Sequence[str], lines: list[list[str]], folder: Path) -> list[list[str]]:
    rows: Iterable[dict[str, str]] = (dict(zip(header, cells, strict=True)) for cells in lines)
    if _SINCE_4.isdisjoint(header):
        rows = migrated_rows(rows, folder)
    cells_of = operator.itemgetter(*COLUMNS)
    this = {"schema_version": str(SCHEMA_VERSION)}
    whole = ({**DEFAULTS, **row, **this} for row in rows)
    return [list(cells_of(row | {name: short_digest(row[name]) for name in DIGEST_COLUMNS})) for row in whole]


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
