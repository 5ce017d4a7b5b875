"""A comparison of two models as text: table with what flipped, LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import compress

from rich.table import Table

from bench.cli.output import latex
from bench.cli.output.rendering import output, table, warn
from bench.comparison.compare import SuiteComparison
from bench.core.names import select_names
from bench.leaderboard.labels import FROM_ONE, label, read_from_one, select_labels, small_number
from bench.leaderboard.metrics import MetricKey
from bench.leaderboard.statistics.paired import ALPHA, Comparison

_SHOWN_FLIPS = 12
_ROOMY, _LONG = 110, 30
"""Characters of a terminal that has room for everything, and of a metric's name that takes much of it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a comparison is printed.

    Attributes:
        first: the model that the other is held against.
        columns: names or wildcards of columns beside the metric's, in that order; all if empty.
        intervals: whether the difference has its interval.
    """

    first: str
    second: str
    columns: Sequence[str] = ()
    intervals: bool = True


def short_label(found: SuiteComparison, key: MetricKey) -> str:
    """The metric's label; robust accuracies name their attack where several ran."""
    keys = (*(one.key for one in found.comparisons), *found.unpaired)
    attacks = {one.attack for one in keys if one.metric == "robust_accuracy"} - {"worst"}
    return label(key, attack=len(attacks) > 1)


def with_metrics(found: Sequence[SuiteComparison], patterns: Sequence[str]) -> list[SuiteComparison]:
    """The comparisons that have any of these metrics, with those alone; p-values stay those over all metrics.

    Args:
        patterns: labels, also with their attack or with their radius as a decimal, or wildcards.

    Raises:
        BenchError: a pattern that no metric has.
    """
    names = [[{short_label(one, own.key), label(own.key)} for own in one.comparisons] for one in found]
    known = dict.fromkeys(name for one in names for own in one for name in sorted(own))
    wanted = set(select_labels([name.removeprefix(FROM_ONE) for name in patterns], known, "metric"))
    chosen = []
    for one, own in zip(found, names, strict=True):
        kept = [not wanted.isdisjoint(name) for name in own]
        comparisons, adjusted = list(compress(one.comparisons, kept)), list(compress(one.adjusted, kept))
        if comparisons:
            chosen.append(replace(one, comparisons=comparisons, adjusted=adjusted, unpaired=[], infinite=()))
    return chosen


def print_comparison(found: SuiteComparison, shape: Shape, *, flipped: bool) -> None:
    """Title, doubts, table, what was not compared, and examples that flipped: all where that is asked for."""
    made = as_table(found, shape)
    output().print(f"\n{shape.second} minus {shape.first}: {found.title}", style="bold", soft_wrap=True)
    warn(doubt for doubt in found.doubts if doubt)
    output().print(made)
    apart = [key for key in found.unpaired if key not in found.infinite]
    for why, keys in (("without values of the same images", apart), ("infinite for an image", found.infinite)):
        if keys:
            names = ", ".join(short_label(found, key) for key in keys)
            output().print(f"not compared, {why}: {names}", soft_wrap=True)
    for one in found.comparisons:
        for ids, winner in ((one.gained, shape.second), (one.lost, shape.first)):
            if not ids or not (flipped or one.key.metric in ("clean_accuracy", "union_accuracy")):
                continue
            shown = ids if flipped else ids[:_SHOWN_FLIPS]
            more = f" and {len(ids) - len(shown)} more (--flipped)" if len(ids) > len(shown) else ""
            listed = ", ".join(map(str, shown))
            output().print(f"{short_label(found, one.key)}, only {winner}: {listed}{more}", soft_wrap=True)


def as_table(found: SuiteComparison, shape: Shape) -> Table:
    head, rows = _cells(found, shape)
    if output().width < _ROOMY and any(len(row[0]) > _LONG for row in rows):
        # beside the names there is no room for a value and its interval in one line
        rows = [[row[0], *(cell.replace(" [", "\n[") for cell in row[1:])] for row in rows]
    made = table(head, rows, right=head[1:])
    made.caption = (
        "p: two-sided, Holm over this suite's metrics; * below 0.05; examples: how many only one of the two has, "
        "and of how many where not of all"
    )
    made.caption_justify = "left"
    return made


def as_latex(found: SuiteComparison, shape: Shape) -> str:
    head, rows = _cells(found, shape)
    title = f"{shape.second} minus {shape.first}: {found.title}; p: two-sided, Holm; * below 0.05"
    return latex.comparison_table(title, head, [one.key for one in found.comparisons], rows)


def _cells(found: SuiteComparison, shape: Shape) -> tuple[list[str], list[list[str]]]:
    """Heads and rows; the first column has the metrics."""
    difference = "difference, 95 %" if shape.intervals else "difference"
    columns = [shape.first, shape.second, difference, "examples", "p"]
    names = [shape.first, shape.second, "difference", "examples", "p"]
    wanted = select_names(shape.columns or ["all"], names, "column")
    kept = [place for name in wanted for place, own in enumerate(names) if own == name]
    rows, most = [], max((one.n_examples for one in found.comparisons), default=0)
    for one, adjusted in zip(found.comparisons, found.adjusted, strict=True):
        lack = FROM_ONE if _is_from_one(one) else ""
        cells = _row(one, adjusted, most, intervals=shape.intervals)
        rows.append([lack + short_label(found, one.key), *(cells[place] for place in kept)])
    return ["metric", *(columns[place] for place in kept)], rows


def _is_from_one(one: Comparison) -> bool:
    return read_from_one((one.first, one.second), one.direction, one.unit)


def _signed(value: float) -> str:
    return ("-" if value < 0 else "+") + small_number(abs(value))


def _row(one: Comparison, adjusted: float, most: int, *, intervals: bool) -> list[str]:
    scale, digits = (100, 1) if one.unit == "share" else (1, 4)
    values = [f"{scale * value:.{digits}f}" for value in (one.first, one.second)]
    found = [f"{scale * value:+.{digits}f}" for value in (one.difference, one.ci_low, one.ci_high)]
    if _is_from_one(one):
        values = [small_number(1 - value) for value in (one.first, one.second)]
        found = [_signed(-value) for value in (one.difference, one.ci_high, one.ci_low)]
    has_interval = intervals and one.ci_low == one.ci_low
    difference = f"{found[0]} [{found[1]}, {found[2]}]" if has_interval else found[0]
    flips = f"+{len(one.gained)} -{len(one.lost)}" if one.test == "McNemar" else ""
    flips += f" of {one.n_examples}" if one.n_examples < most else ""
    mark = "*" if adjusted <= ALPHA else ""
    return [*values, difference, flips.lstrip(), f"{adjusted:.2g}{mark}"]
