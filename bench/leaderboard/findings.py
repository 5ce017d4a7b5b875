"""Findings: what a run noticed besides its numbers, in a form that people and programs can read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
