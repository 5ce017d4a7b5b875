"""What is wrong with the maps that pixels are ranked by."""

from __future__ import annotations

from torch import Tensor

from bench.core.errors import BenchError
from bench.leaderboard.findings import Finding

INVISIBLE = 1e-7
"""Bridging, pitfall 1: below this, the published code's map is as small as the noise that breaks its ties."""


def map_findings(seen: Tensor, model: str, name: str, split: str) -> list[Finding]:
    """What is wrong with the maps of a split; `seen` is (3, N): constant, not finite, and invisible in float32."""
    constant, broken, invisible = (float(row.float().mean()) for row in seen)
    if constant + broken == 1.0:
        what = "has the same score at all pixels" if constant else "is NaN or infinite"
        raise BenchError(
            f"every {name} map of {model} {what}, so there is nothing to rank; look at the net's gradients, take "
            "another scalar (logit) or another attribution."
        )
    at_random = "their pixels are ranked at random, which pulls the score towards 0"
    found = []
    if broken > 0.0:
        evidence = f"{100 * broken:.2f} % of the {split} images have a {name} map with NaN or infinite values"
        found.append(Finding("non_finite_maps", "warning", evidence, f"{at_random}; mend the net's backward pass"))
    if constant > 0.0:
        evidence = f"{100 * constant:.2f} % of the {split} images have a constant {name} map"
        found.append(Finding("constant_maps", "warning", evidence, at_random))
    if found:
        return found
    if invisible > 0.01:
        return [
            Finding(
                "saturated_gradients", "note",
                f"{100 * invisible:.1f} % of the {split} images have a median cross-entropy gradient below 1e-7",
                "the published code ranks those by its tie-breaking noise; here the vanishing factor is left out",
            )
        ]  # fmt: skip
    return []
