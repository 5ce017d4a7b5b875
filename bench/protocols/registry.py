"""The protocols by name."""

from __future__ import annotations

from bench.catalog.suites import Suite
from bench.core.names import unknown_name
from bench.protocols.autoattack import AutoAttack
from bench.protocols.autoattack_fast import AutoAttackFast
from bench.protocols.base import Protocol
from bench.protocols.blackbox import BlackBox
from bench.protocols.corruptions import Corruptions
from bench.protocols.cross_norm import CrossNorm
from bench.protocols.minimum_norm import MinimumNorm
from bench.protocols.union import Union

PROTOCOLS: dict[str, type[Protocol]] = {
    "autoattack": AutoAttack,
    "autoattack_fast": AutoAttackFast,
    "blackbox": BlackBox,
    "corruptions": Corruptions,
    "cross_norm": CrossNorm,
    "minimum_norm": MinimumNorm,
    "union": Union,
}


def protocol_for(suite: Suite) -> Protocol:
    """The suite's protocol with its parameters checked; raises BenchError."""
    if suite.file.protocol not in PROTOCOLS:
        raise unknown_name(suite.file.protocol, PROTOCOLS, f"protocol in suite {suite.path}")
    return PROTOCOLS[suite.file.protocol].from_parameters(suite.file.parameters, f"suite {suite.path}")
