"""Taking runs out of a leaderboard that nothing rests on any more."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from bench.core.files import clear_disk_errors, locked, read_named, write_atomically
from bench.leaderboard.evidence.adversarial import FILE_NAME as FILE_OF_IMAGES
from bench.leaderboard.evidence.doubts import may_be_one_net
from bench.leaderboard.metrics import EXTERNAL
from bench.leaderboard.table import FILE_NAME, read_leaderboard

_JUDGED = ["model", "dataset", "split", "suite"]
_OF_VERSIONS = ["seed", "precision", "model_sha256", "data_sha256"]
"""What runs of two versions of a suite share where the newer takes the place of the older."""
_ALIKE = [*_OF_VERSIONS, "suite_version", "device", "suite_sha256", "dependencies_sha256"]


@dataclass(frozen=True, slots=True)
class Superseded:
    """A run that another one has taken the place of, and how many bytes its evidence has."""

    run_id: str
    model: str
    suite: str
    suite_version: int
    by: str
    size: int


def superseded_runs(folder: Path) -> list[Superseded]:
    """Runs of an older version of a suite under whose newest the same net has been judged, on the same data, with
    the same seed and precision, and runs that were repeated, on the same kind of device too; on no fewer images. What
    a study in `studies/` names stays, what others' images have lowered, and a run that kept its adversarial images as
    long as no later one did.

    Raises:
        BenchError: the folder holds no leaderboard, or a damaged one.
    """
    rows = read_leaderboard(folder)
    examples = rows.groupby("run_id")["n_examples"].transform("max")
    runs = rows.assign(n_examples=examples).drop_duplicates("run_id")
    runs = runs.sort_values("finished_at", kind="stable", ignore_index=True)
    named = b"\n".join(read_named(path, "the study's plan") for path in sorted(folder.glob("studies/*/plan.json")))
    # a repetition does not have what others found
    kept = set(rows.loc[rows["attack"].str.startswith(EXTERNAL), "run_id"])

    def keeps_images(run_id: object) -> bool:
        return (folder / "runs" / str(run_id) / FILE_OF_IMAGES).is_file()

    found = []
    for _, alike in runs.groupby(_JUDGED, sort=False):
        newest = alike[alike["suite_version"] == alike["suite_version"].max()]
        for run in alike.itertuples():
            if run.run_id in kept:
                continue
            older = run.suite_version < newest["suite_version"].max()
            by = _taking_place(newest, run, _OF_VERSIONS) if older else _repeats(alike, run)
            by = by[by["run_id"].map(partial(may_be_one_net, folder, str(run.run_id))).astype(bool)]
            if keeps_images(run.run_id):
                by = by[by["run_id"].map(keeps_images)]
            if len(by) and f'"{run.run_id}"'.encode() not in named:
                files = (path for path in (folder / "runs" / str(run.run_id)).rglob("*") if path.is_file())
                size, version = sum(path.stat().st_size for path in files), int(str(run.suite_version))
                found.append(Superseded(
                    str(run.run_id), f"{run.dataset}/{run.model}", str(run.suite), version,
                    by=str(by.iloc[-1]["run_id"]), size=size,
                ))  # fmt: skip
    return found


def _repeats(runs: pd.DataFrame, run: object) -> pd.DataFrame:
    """Later runs of the same suite, seed and device on as many images or more."""
    later: pd.Series = runs.index.to_series() > getattr(run, "Index")  # noqa: B009 - a named tuple of pandas
    return _taking_place(runs[later], run, _ALIKE)


def _taking_place(runs: pd.DataFrame, run: object, shared: list[str]) -> pd.DataFrame:
    """Those of `runs` that agree with `run` in these columns, on as many images or more."""
    same: pd.Series = (runs[shared] == [getattr(run, name) for name in shared]).all(axis=1)
    enough: pd.Series = runs["n_examples"] >= getattr(run, "n_examples")  # noqa: B009 - a named tuple of pandas
    return runs[same & enough]


def remove_runs(folder: Path, run_ids: Collection[str]) -> None:
    """Remove the rows of these runs, then their evidence; a stop in between leaves evidence without rows."""
    with clear_disk_errors(folder), locked(folder / ".lock"):
        path = folder / FILE_NAME
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.split(",", 1)[0].strip('"') not in run_ids]  # spreadsheets quote cells
        write_atomically(path, "".join(kept).encode())
        for evidence in filter(Path.exists, (folder / "runs" / run_id for run_id in run_ids)):
            shutil.rmtree(evidence)
