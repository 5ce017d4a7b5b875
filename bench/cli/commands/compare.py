"""`bench compare`: two models on the same images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import DEFAULT_LEADERBOARD, DataDir, Json, LeaderboardDir, OnlyDataset, OnlySuite

if TYPE_CHECKING:
    from rich.table import Table

    from bench.comparison.compare import SuiteComparison

SHOWN_FLIPS = 12


def compare(
    first: Annotated[str, typer.Argument(help="A model of the leaderboard, e.g. standard or mnist/standard.")],
    second: Annotated[str, typer.Argument(help="Another one.")],
    suite: OnlySuite = None,
    dataset: OnlyDataset = None,
    flipped: Annotated[bool, typer.Option("--flipped", help="List every example whose verdict flipped.")] = False,
    images: Annotated[
        Path | None, typer.Option("--images", help="PNG file: some of the flipped images.", show_default=False)
    ] = None,
    leaderboard: LeaderboardDir = DEFAULT_LEADERBOARD,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Compare two models example by example: McNemar's exact test for shares, all signs or Student's t for means."""
    from bench.cli.output.rendering import messages, output, warn
    from bench.comparison.compare import compare_models

    found, skipped = compare_models(first, second, leaderboard, dataset=dataset, suite=suite)
    if as_json:
        from bench.cli.output.json_output import comparison_entry, print_json

        entries = [comparison_entry(one) for one in found]
        print_json("compare", first=first, second=second, comparisons=entries, skipped=skipped)
    else:
        for one in found:
            _print(one, first, second, flipped=flipped)
        warn(skipped)
    if images is not None:
        from bench.reporting.flip_panel import draw_flips

        draw_flips(found, (first, second), images, leaderboard=leaderboard, data_dir=data_dir)
        (messages if as_json else output)().print(f"images: {images}", soft_wrap=True)


def _print(found: SuiteComparison, first: str, second: str, *, flipped: bool) -> None:
    from bench.cli.output.rendering import output, warn
    from bench.leaderboard.labels import label

    output().print(f"\n{second} minus {first}: {found.title}", style="bold", soft_wrap=True)
    warn(doubt for doubt in found.doubts if doubt)
    output().print(_table(found, first, second))
    if found.unpaired:
        names = ", ".join(map(label, found.unpaired))
        output().print(f"without evidence by example, not compared: {names}", soft_wrap=True)
    _print_flips(found, first, second, every=flipped)


def _table(found: SuiteComparison, first: str, second: str) -> Table:
    from bench.cli.output.rendering import table
    from bench.leaderboard.labels import label
    from bench.leaderboard.statistics.paired import ALPHA

    rows = []
    for one, adjusted in zip(found.comparisons, found.adjusted, strict=True):
        scale, digits = (100, 1) if one.unit == "share" else (1, 4)
        values = (scale * one.first, scale * one.second)
        low, high = scale * one.ci_low, scale * one.ci_high
        spread = f"{scale * one.difference:+.{digits}f}"
        spread += f" [{low:+.{digits}f}, {high:+.{digits}f}]" if low == low else ""
        flips = f"+{len(one.gained)} -{len(one.lost)}" if one.test == "McNemar" else ""
        mark = "*" if adjusted <= ALPHA else ""
        cells = [f"{value:.{digits}f}" for value in values]
        rows.append([label(one.key), *cells, spread, flips, f"{adjusted:.2g}{mark}"])
    columns = ["metric", first, second, "difference, 95 %", "examples", "p"]
    made = table(columns, rows, right=columns[1:])
    made.caption = "p: two-sided, Holm over these metrics; * below 0.05; examples: how many only one of the two has"
    made.caption_justify = "left"
    return made


def _print_flips(found: SuiteComparison, first: str, second: str, *, every: bool) -> None:
    from bench.cli.output.rendering import output
    from bench.leaderboard.labels import label

    for one in found.comparisons:
        for ids, winner in ((one.gained, second), (one.lost, first)):
            if not ids or not (every or one.key.metric in ("clean_accuracy", "union_accuracy")):
                continue
            shown = ids if every else ids[:SHOWN_FLIPS]
            more = f" and {len(ids) - len(shown)} more (--flipped)" if len(ids) > len(shown) else ""
            listed = ", ".join(map(str, shown))
            output().print(f"{label(one.key)}, only {winner}: {listed}{more}", soft_wrap=True)
