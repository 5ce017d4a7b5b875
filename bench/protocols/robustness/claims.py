"""What the claims of attacks tell about the net that they were made on, for every protocol."""

from __future__ import annotations

from collections.abc import Mapping

from bench.core.precision import Precision, uncompiled
from bench.leaderboard.findings import Finding

REJECTED_SHARE = 0.02
"""A share of rejected claims above this is a finding: a net that gives one image one answer has hardly any."""
REJECTED_AT_LEAST = 6


def claim_findings(counters: Mapping[str, int], precision: Precision) -> list[Finding]:
    """What a run's counters say of claims that did not verify, and of answers that are no numbers.

    Args:
        precision: of the search; in less than float32 it claims what it is not sure of, and many claims are rejected.
    """
    found = []
    claims, outside = counters.get("claims", 0), counters.get("outside_claims", 0)
    rejected = counters.get("rejected_claims", 0) - outside
    if uncompiled(precision) == "float32" and rejected >= REJECTED_AT_LEAST and rejected > REJECTED_SHARE * claims:
        evidence = f"{rejected} of {claims} images on which attacks saw a wrong answer got the right one when judged"
        advice = (
            "the net gives one image two answers, by noise, its batch, a memory or a look at who asks; the robust "
            "accuracy is not to be trusted before it is known why"
        )
        found.append(Finding("rejected_claims", "warning", evidence, advice))
    if outside:
        evidence = f"{outside} of {claims} images that attacks claimed lie outside of the ball that was asked for"
        advice = "they do not count; mend the attack, or give it the norm that it works in"
        found.append(Finding("outside_claims", "warning", evidence, advice))
    unanswered = counters.get("non_finite_logits", 0)
    if unanswered:
        evidence = f"for {unanswered} images NaN or infinite logits were found near by, which count as wrong"
        advice = "look for overflow, a division by 0 or a logarithm of 0 in the net"
        found.append(Finding("non_finite_logits", "warning", evidence, advice))
    return found
