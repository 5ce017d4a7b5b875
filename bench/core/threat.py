"""Threat models: a norm and a radius, in pixels of [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Norm = Literal["linf", "l2", "l1"]
NORMS: tuple[Norm, ...] = get_args(Norm)
NORM_LABELS: dict[str, str] = {"linf": "L-inf", "l2": "L2", "l1": "L1", "l0": "L0"}


@dataclass(frozen=True, slots=True)
class ThreatModel:
    """All images x' in [0, 1] with ||x' - x||_norm <= eps."""

    norm: Norm
    eps: float
