"""What rows share that stand in one table, and how such a table is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

COMPARABLE = (
    "dataset", "split", "suite", "suite_version", "suite_sha256", "data_sha256", "dependencies_sha256", "n_examples",
    "seed", "precision",
)  # fmt: skip
"""Rows are ranked together only where all of these agree."""
_DIGESTS = {"suite_sha256": "suite", "data_sha256": "data", "dependencies_sha256": "dependencies"}


def precision_note(precision: str) -> str:
    """What a title adds where adversarial examples were not looked for in float32."""
    return "" if precision == "float32" else f", {precision} search"


def table_notes(tables: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What each title adds, of tables by what they share: precision, and digests where they differ in nothing else."""
    for table in tables:
        alike = [one for one in tables if all(one[name] == table[name] for name in COMPARABLE if name not in _DIGESTS)]
        digests = (
            f", {word} {str(table[name])[:8] or 'none'}"
            for name, word in _DIGESTS.items()
            if any(one[name] != table[name] for one in alike)
        )
        yield precision_note(table["precision"]) + "".join(digests)


def table_title(shared: Mapping[str, Any], note: str) -> str:
    """The data set, images, suite and seed, and a note of `table_notes`."""
    return (
        f"{shared['dataset']} ({shared['split']}, {shared['n_examples']} images), suite {shared['suite']} version "
        f"{shared['suite_version']}, seed {shared['seed']}{note}"
    )
