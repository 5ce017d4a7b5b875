"""The protocols by name."""

from __future__ import annotations

from bench.catalog.suites import Suite
from bench.core.errors import BenchError
from bench.core.names import unknown_name
from bench.core.packages import load_plugin, plugin_names
from bench.protocols.base import Protocol
from bench.protocols.clean import Clean
from bench.protocols.explanations.agreement import AttributionAgreement
from bench.protocols.explanations.alignment import GradientAlignment
from bench.protocols.explanations.attack import AttributionAttack
from bench.protocols.explanations.complexity import Complexity
from bench.protocols.explanations.faithfulness import Faithfulness
from bench.protocols.explanations.insertion import Insertion
from bench.protocols.explanations.localisation import Localisation
from bench.protocols.explanations.sanity_checks import SanityChecks
from bench.protocols.explanations.stability import AttributionStability
from bench.protocols.manifold.distance import ManifoldDistance
from bench.protocols.retraining.protocol import Retrain
from bench.protocols.robustness.corruptions import Corruptions
from bench.protocols.robustness.presets import AutoAttack, AutoAttackFast, BlackBox, CrossNorm, MinimumNorm, Union
from bench.protocols.robustness.protocol import Robustness

PROTOCOLS: dict[str, type[Protocol]] = {
    "autoattack": AutoAttack,
    "clean": Clean,
    "autoattack_fast": AutoAttackFast,
    "blackbox": BlackBox,
    "robustness": Robustness,
    "corruptions": Corruptions,
    "cross_norm": CrossNorm,
    "attribution_stability": AttributionStability,
    "attribution_attack": AttributionAttack,
    "gradient_alignment": GradientAlignment,
    "insertion": Insertion,
    "attribution_agreement": AttributionAgreement,
    "faithfulness": Faithfulness,
    "complexity": Complexity,
    "localisation": Localisation,
    "sanity_checks": SanityChecks,
    "manifold_distance": ManifoldDistance,
    "retrain": Retrain,
    "minimum_norm": MinimumNorm,
    "union": Union,
}


def protocol_for(suite: Suite) -> Protocol:
    """The suite's protocol with its parameters checked; raises BenchError."""
    ours = PROTOCOLS.get(suite.file.protocol)
    protocol = (ours or _from_plugin(suite)).from_parameters(suite.file.parameters, f"suite {suite.path}")
    if ours is None:
        protocol.plugin = suite.file.protocol
    return protocol


def _from_plugin(suite: Suite) -> type[Protocol]:
    """The protocol that an installed package announces in `bench.protocols`."""
    name, announced = suite.file.protocol, plugin_names("bench.protocols")
    if name not in announced:
        raise unknown_name(name, [*PROTOCOLS, *announced], f"protocol in suite {suite.path}")
    found = load_plugin("bench.protocols", name)
    if not (isinstance(found, type) and issubclass(found, Protocol)):
        raise BenchError(f"the plug-in {name!r} in bench.protocols is no subclass of bench.protocols.Protocol.")
    if found.__abstractmethods__:
        lacking = ", ".join(sorted(found.__abstractmethods__))
        raise BenchError(f"the plug-in {name!r} in bench.protocols lacks {lacking}; see bench.protocols.Protocol.")
    return found
