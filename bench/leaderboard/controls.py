"""Controls: maps that know nothing of the net, or little, beside which a figure of an attribution method is read.

A protocol gives a control's metric the method's key but for the subject, whose first part begins with CONTROL.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace

from bench.leaderboard.boards import Board, Row
from bench.leaderboard.findings import Finding
from bench.leaderboard.metrics import Direction, Metric, MetricKey

CONTROL = "control_"
MARK = "†"
"""Beside a figure that a control equals or beats."""
MEANING = f"{MARK} a control does as well or better"
_NAMED = 5


def is_control(key: MetricKey) -> bool:
    """Whether it is a control that is measured."""
    return key.subject.startswith(CONTROL)


def beaten(figures: Iterable[tuple[MetricKey, Direction, float, Hashable]]) -> dict[MetricKey, str]:
    """The figures of one run, a method's each, that a control equals or beats; and the best such control.

    Values alone are compared, whatever their intervals: where a control is as good by chance, the method is not shown
    to be better either. A control whose number of examples, the last of a figure, is another is not compared.
    """
    figures = list(figures)
    rivals: dict[tuple[MetricKey, Hashable], list[tuple[float, str]]] = {}
    for key, _, value, count in figures:
        if is_control(key):
            name, _, rest = key.subject.partition("/")
            rivals.setdefault((replace(key, subject=rest), count), []).append((value, name))
    found = {}
    for key, direction, value, count in figures if rivals else ():
        others = rivals.get((replace(key, subject=key.subject.partition("/")[2]), count))
        if others is None or is_control(key) or direction == "descriptive":
            continue
        best, name = max(others) if direction == "higher" else min(others)
        if best >= value if direction == "higher" else best <= value:
            found[key] = name
    return found


def beaten_metrics(metrics: Sequence[Metric]) -> dict[MetricKey, str]:
    """The same of a run's metrics."""
    return beaten((metric.key, metric.direction, metric.value, metric.n_examples) for metric in metrics)


def beaten_cells(board: Board, row: Row) -> dict[MetricKey, str]:
    """The same of a row of a table."""
    pairs = [(column, cell) for column, cell in zip(board.columns, row.cells, strict=True) if cell is not None]
    return beaten((column.key, column.direction, cell.value, (cell.counts, cell.models)) for column, cell in pairs)


def control_findings(metrics: Sequence[Metric]) -> list[Finding]:
    """A note that counts and names what a control equals or beats."""
    found = beaten_metrics(metrics)
    if not found:
        return []
    judged = sum(metric.direction != "descriptive" and metric.key.metric != "clean_accuracy" for metric in metrics)
    named = [f"{key.metric} of {key.subject} ({name})" for key, name in list(found.items())[:_NAMED]]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    evidence = f"a control does as well or better in {len(found)} of {judged} figures: {', '.join(named)}{more}"
    advice = f"marked {MARK} in tables; such a figure does not show that the map knows more of the net than its control"
    return [Finding("beaten_by_a_control", "note", evidence, advice)]
