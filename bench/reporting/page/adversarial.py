"""The page's gallery of adversarial images: those nearest to their clean images, of runs that have kept them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.leaderboard.evidence.finished_runs import Run
from bench.reporting.adversarial import AdversarialRow, signed_difference
from bench.reporting.page.saliency import heat_map, picture


@dataclass(frozen=True, slots=True)
class AdversarialSet:
    """Adversarial images of one run.

    Attributes:
        panels: a row of the run with three data URIs of small PNGs: clean image, adversarial image, what was added.
    """

    model: str
    suite: str
    panels: Sequence[tuple[AdversarialRow, tuple[str, str, str]]]


def adversarial_set(run: Run, rows: Sequence[AdversarialRow]) -> AdversarialSet:
    """The rows as the page shows them."""
    panels = [
        (row, (picture(row.clean), picture(row.image), heat_map(signed_difference(row).astype("float64"))))
        for row in rows
    ]
    return AdversarialSet(run.model, str(run.shared["suite"]), panels)
