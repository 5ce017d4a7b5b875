"""Every protocol that judges a net, in its smallest form, for the nets and images of tests.grammar."""

from __future__ import annotations

from typing import Any

RADII = {"linf": [0.03, 0.08], "l2": [0.3, 0.8], "l1": [2.0, 5.0]}
REFERENCE = {"linf": 0.08, "l2": 0.8, "l1": 5.0}
_AT_REFERENCE = {"datasets": {kind: {"reference": REFERENCE} for kind in ("grey", "colour")}}
_AT_TWO = {"datasets": {kind: {"reference": {"linf": 0.08, "l1": 5.0}} for kind in ("grey", "colour")}}
_STAGES = [{"steps": 4}, {"steps": 4, "targets": 2, "widen": 3.0}, {"steps": 4, "polish": True, "dense": 0.1}]
_MAPS = [{"name": "gradient"}, {"name": "input_x_gradient"}]
_MANY_MAPS = [{"name": name} for name in ("grad_cam", "guided_backprop", "lrp_epsilon")]

SUITES: dict[str, dict[str, Any]] = {
    "cross_norm": {
        "attacks": [{"kind": "sweep", "name": "sweep", "steps": 4, "losses": ["margin"], "patience": 1, "polish": 3}],
        "datasets": {kind: {"reference": REFERENCE, "radii": RADII} for kind in ("grey", "colour")},
    },
    "autoattack_fast": {"stages": _STAGES, **_AT_REFERENCE},
    "union": {"stages": _STAGES, **_AT_REFERENCE},
    "autoattack": {"version": "standard", "iterations": 4, "queries": 8, **_AT_TWO},
    "blackbox": {"queries": 8, "decision_steps": 1, **_AT_TWO},
    "minimum_norm": {
        "steps": 4, "rungs": 4, "ratio": 1.5, "losses": ["margin"], "zero_norm_steps": 6,
        "datasets": {kind: {"largest": {"linf": 0.2, "l2": 2.0, "l1": 10.0}} for kind in ("grey", "colour")},
    },
    "corruptions": {"corruptions": ["gaussian_noise", "contrast"]},
    "attribution_stability": {"radii": [0.03], "draws": 1, "measures": ["cosine", "top_k"], "attributions": _MAPS},
    "attribution_attack": {
        "radii": [0.03], "check_every": 2, "measures": ["cosine", "top_k"], "attributions": _MAPS[:1],
        "attacks": [{"kind": "frame", "steps": 2}, {"kind": "random_sign"}],
    },
    "insertion": {"steps": 4, "attack": {"kind": "frame", "steps": 2}, "radii": [0.03], "attributions": _MAPS[:1]},
    "attribution_agreement": {"measures": ["spearman", "cosine"], "attributions": [*_MAPS[:1], *_MANY_MAPS]},
}  # fmt: skip
