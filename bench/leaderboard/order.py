"""Which values of a column may be held against each other, and the order of a table's rows that follows from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from bench.leaderboard.boards import Column, Row

Count = TypeVar("Count", bound=Hashable)
_NAMED = 5


def usual_count(counts: Iterable[Count]) -> Count | None:
    """The number of images that more than half of some values are over; None where there is no such number."""
    found = Counter(counts)
    return next((count for count, times in found.items() if 2 * times > found.total()), None)


def comparable(rows: Sequence[Row], place: int) -> list[bool]:
    """For each row whether its value in a column is over as many images as most values of the column are.

    Also over all models of its row, and of each as many. What is not stands apart: it is held against no other value.
    """
    cells = [row.cells[place] for row in rows]
    usual = usual_count(cell.counts for cell in cells if cell is not None)
    return [
        cell is not None and cell.counts == usual and len(cell.counts) < 2 and cell.models in (0, row.models)
        for row, cell in zip(rows, cells, strict=True)
    ]


def set_apart(rows: Sequence[Row], places: Sequence[int]) -> list[Row]:
    """The rows, those marked as apart whose values in these columns cannot all be held against the others'."""
    alike = [all(each) for each in zip(*(comparable(rows, place) for place in places), strict=True)]
    return [
        replace(row, apart=not one and all(row.cells[place] is not None for place in places))
        for row, one in zip(rows, alike, strict=True)
    ]


def sorted_rows(rows: Iterable[Row], columns: tuple[Column, ...], by: Column) -> tuple[Row, ...]:
    """Best first in the column `by`; then the rows that stand apart, then those without a value."""
    place, sign = columns.index(by), 1 if by.lower_first else -1

    def order(row: Row) -> tuple[bool, bool, float]:
        cell = row.cells[place]
        return cell is None, row.apart, 0.0 if cell is None else sign * cell.value

    return tuple(sorted(rows, key=order))


def order_note(rows: Sequence[Row]) -> str:
    """For people, which of the sorted rows stand apart; empty where none does."""
    apart = [row.name for row in rows if row.apart]
    if not apart:
        return ""
    what = "images or models" if any(row.models for row in rows) else "images"
    if rows[0].apart:
        return f"values over different numbers of {what}, so that their order is no ranking"
    more = f" and {len(apart) - _NAMED} more" if len(apart) > _NAMED else ""
    return f"last and not compared, over another number of {what}: {', '.join(apart[:_NAMED])}{more}"
