"""The one place that knows pyautoattack: what of AutoAttack is not our own writing, `pyautoattack:fab` for one.

Untargeted FAB, and APGD on gradients that are averaged over passes, which are for random nets.
Source: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks", ICML 2020; L1: Croce and Hein, "Mind the box", ICML 2021.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from bench.attacks.adapters.prepared_model import PreparedModel
from bench.attacks.losses import dlr
from bench.attacks.norms import distance
from bench.attacks.registry import OFFERED, Attack, AttackResult, described
from bench.attacks.verification import RELATIVE_TOLERANCE
from bench.core.bounds import Steps
from bench.core.keywords import keywords_of
from bench.core.names import unknown_name
from bench.core.packages import optional_import
from bench.core.threat import Norm

Component = Literal["apgd-ce", "apgd-dlr", "fab"]
Version = Literal["standard", "plus", "rand"]
COMPONENTS: tuple[Component, ...] = get_args(Component)
_NORM_NAMES: dict[Norm, str] = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def import_pyautoattack() -> Any:
    """Import pyautoattack; raises BenchError if it cannot be imported."""
    return optional_import("pyautoattack", "an attack of pyautoattack", "pyautoattack")


def find(component: str) -> Attack:
    """A component of AutoAttack; raises BenchError if it has no such one."""
    import_pyautoattack()
    if component not in COMPONENTS:
        raise unknown_name(component, COMPONENTS, "component of pyautoattack")
    return described(
        partial(_run, component), f"pyautoattack:{component}", parameters=keywords_of(_run, 4, OFFERED), keyed=False,
        needs_gradients=True,
    )  # fmt: skip


def _run(
    component: Component,
    model: PreparedModel,
    images: Tensor,
    labels: Tensor,
    *,
    norm: Norm,
    eps: Tensor,
    version: Version = "standard",
    iterations: Steps | None = None,
) -> AttackResult:
    """The component on all examples together: it draws its noise for the batch as a whole."""
    whole = import_pyautoattack().AutoAttack(
        model, norm=_NORM_NAMES[norm], eps=float(eps[0]), version=version, device=images.device
    )
    if model.num_classes < 3:
        whole.apgd.dlr_loss = dlr
    whole.apgd.loss, whole.fab.targeted = component.removeprefix("apgd-"), False
    attack = whole.fab if component == "fab" else whole.apgd
    if iterations is not None:
        attack.n_iter = attack.n_iter_orig = iterations
        attack.n_iter_2 = max(int(0.22 * iterations), 1)
        attack.n_iter_min = max(int(0.06 * iterations), 1)
        attack.size_decr = max(int(0.03 * iterations), 1)
    attack.seed = torch.initial_seed() % (1 << 31)
    unanswered: list[Tensor] = []
    watching = model.register_forward_hook(
        lambda _, images, logits: unanswered.append(images[0].detach()[~logits.isfinite().all(1)])
    )
    found: Tensor = attack.perturb(images, labels)
    watching.remove()
    # it takes NaN for class 0, and so goes past such points of images of that class
    for point in torch.cat([found[:0], *unanswered]):
        apart = distance(images - point, norm)
        if apart.min() <= eps[0] * (1.0 + RELATIVE_TOLERANCE):
            found[apart.argmin()] = point
    return AttackResult(found)
