"""Findings: what a run noticed besides its numbers, in a form that people and programs can read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

MASKING = "gradient_masking"
"""The finding whose evidence begins with the verdict on gradient masking."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a reader of the number should know.

    Attributes:
        id: a stable short name.
        evidence: what was seen, with figures.
        advice: what to do about it.
    """

    id: str
    severity: Literal["note", "warning"]
    evidence: str
    advice: str


def masking_verdict(findings: Iterable[Finding]) -> str:
    """`no sign`, `not judged`, `suspicious` or `masked`; empty where nothing was looked for."""
    report = [found.evidence for found in findings if found.id == MASKING]
    return report[0].partition(";")[0].strip() if report else ""
