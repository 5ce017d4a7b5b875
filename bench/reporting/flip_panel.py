"""A picture of examples on which two models' verdicts differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.comparison.compare import SuiteComparison
from bench.core.errors import BenchError
from bench.core.files import write_atomically
from bench.data import load_split
from bench.leaderboard.evidence.manifest import read_evidence
from bench.leaderboard.labels import label
from bench.reporting.figures import figure_bytes, require_picture

PER_ROW = 8


def draw_flips(
    found: Sequence[SuiteComparison],
    names: tuple[str, str],
    path: Path,
    *,
    leaderboard: Path,
    data_dir: Path | None = None,
) -> None:
    """Write a picture: for each metric with flipped examples a row of images that only the one or only the other has.

    Clean accuracy and the union come first; at most four metrics, eight images a row. The images are the clean ones,
    titled with the label and both clean predictions.

    Raises:
        BenchError: no example flipped, the data are missing, or the file cannot be written.
    """
    kind, rows = require_picture(path, "images"), _rows(found, names)
    if not rows:
        raise BenchError(f"no verdict differs between {names[0]} and {names[1]}, so there is nothing to draw.")
    figure = Figure(figsize=(1.3 * PER_ROW + 2, 1.6 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), PER_ROW, squeeze=False)
    for axes, (suite, title, ids) in zip(grid, rows, strict=True):
        _draw_row(axes, suite, ids, leaderboard, data_dir=data_dir)
        axes[0].text(-0.1, 0.5, title, transform=axes[0].transAxes, ha="right", va="center", fontsize=7)
    figure.suptitle(f"example: label, then predictions of {names[0]} | {names[1]}", fontsize=8)
    write_atomically(path, figure_bytes(figure, kind))


def _rows(found: Sequence[SuiteComparison], names: tuple[str, str]) -> list[tuple[SuiteComparison, str, Sequence[int]]]:
    """Suite, title and examples of each row."""
    rows: list[tuple[SuiteComparison, str, Sequence[int]]] = []
    for suite in found:
        order = sorted(suite.comparisons, key=lambda one: one.key.metric not in ("clean_accuracy", "union_accuracy"))
        for one in [one for one in order if one.gained or one.lost][:4]:
            rows += [
                (suite, f"{label(one.key)}\nonly {winner}", ids[:PER_ROW])
                for ids, winner in ((one.gained, names[1]), (one.lost, names[0]))
                if ids
            ]
    return rows


def _draw_row(
    axes: Sequence[Axes], suite: SuiteComparison, ids: Sequence[int], leaderboard: Path, data_dir: Path | None
) -> None:
    data = load_split(suite.dataset, "test", data_dir=data_dir)
    records = [read_evidence(leaderboard / "runs" / run)[1].drop_duplicates("example_id") for run in suite.runs]
    predictions = [of_run.set_index("example_id")["prediction"] for of_run in records]
    for axis in axes:
        axis.set_axis_off()
    for axis, example in zip(axes, ids, strict=False):
        pixels = data.pixels(slice(example, example + 1))[0].permute(1, 2, 0).numpy()
        axis.imshow(pixels.squeeze(), cmap="gray", vmin=0, vmax=1)
        truth, seen = int(data.labels[example]), [int(column.loc[example]) for column in predictions]
        axis.set_title(f"{example}: {truth}\n{seen[0]} | {seen[1]}", fontsize=7)
