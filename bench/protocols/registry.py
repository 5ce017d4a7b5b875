"""The protocols by name."""

from __future__ import annotations

from bench.catalog.suites import Suite
from bench.core.names import unknown_name
from bench.protocols.base import Protocol
from bench.protocols.cross_norm import CrossNorm
from bench.protocols.manifold_distance import ManifoldDistance
from bench.protocols.retrain import Retrain

PROTOCOLS: dict[str, type[Protocol]] = {
    "cross_norm": CrossNorm,
    "manifold_distance": ManifoldDistance,
    "retrain": Retrain,
}


def protocol_for(suite: Suite) -> Protocol:
    """The suite's protocol with its parameters checked; raises BenchError."""
    if suite.file.protocol not in PROTOCOLS:
        raise unknown_name(suite.file.protocol, PROTOCOLS, f"protocol in suite {suite.path}")
    return PROTOCOLS[suite.file.protocol].from_parameters(suite.file.parameters, f"suite {suite.path}")
