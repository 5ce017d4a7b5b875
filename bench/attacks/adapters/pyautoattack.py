"""The one place that knows pyautoattack: AutoAttack's components as the distribution has them, `pyautoattack:fab`.

`apgd-ce`, `apgd-t`, `fab-t` and `square` are our own writing; untargeted FAB, and APGD on gradients that are averaged
over passes, which are for random nets, are the distribution's.
Source: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks", ICML 2020; L1: Croce and Hein, "Mind the box", ICML 2021.
"""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from bench.attacks.adapters.prepared_model import PreparedModel
from bench.attacks.losses import dlr, targeted_dlr
from bench.attacks.registry import OFFERED, Attack, AttackResult, described
from bench.core.bounds import Queries, Steps
from bench.core.errors import BenchError
from bench.core.keywords import keywords_of
from bench.core.names import unknown_name
from bench.core.threat import Norm

Component = Literal["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"]
Version = Literal["standard", "plus", "rand"]
COMPONENTS: tuple[Component, ...] = get_args(Component)
_NORM_NAMES: dict[Norm, str] = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def import_pyautoattack() -> ModuleType:
    """Import pyautoattack; raises BenchError if it cannot be imported."""
    try:
        import pyautoattack
    except ImportError as error:
        raise BenchError(
            f"pyautoattack cannot be imported ({error}); install it with: pip install pyautoattack"
        ) from error
    module: ModuleType = pyautoattack
    return module


def find(component: str) -> Attack:
    """A component of AutoAttack; raises BenchError if it has no such one."""
    import_pyautoattack()
    if component not in COMPONENTS:
        raise unknown_name(component, COMPONENTS, "component of pyautoattack")
    return described(
        partial(_run, component), f"pyautoattack:{component}", parameters=keywords_of(_run, 4, OFFERED), keyed=False,
        needs_gradients=component != "square",
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
    queries: Queries | None = None,
) -> AttackResult:
    """The component on all examples together: it draws its noise for the batch as a whole."""
    attack = component_of(component, model, norm, float(eps[0]), version=version, device=images.device)
    _set_effort(attack, iterations, queries)
    attack.seed = torch.initial_seed() % (1 << 31)
    unanswered: list[Tensor] = []
    watching = model.register_forward_hook(
        lambda _, images, logits: unanswered.append(images[0].detach()[~logits.isfinite().all(1)])
    )
    found: Tensor = attack.perturb(images, labels)
    watching.remove()
    # it takes NaN for class 0, and so goes past such points of images of that class
    for point in torch.cat([found[:0], *unanswered]):
        found[(images - point).flatten(1).norm(dim=1).argmin()] = point
    return AttackResult(found)


def component_of(
    component: Component, model: PreparedModel, norm: Norm, eps: float, version: Version, device: torch.device
) -> Any:
    """The component object as AutoAttack configures it for the version, with as many targets as there are classes."""
    whole = import_pyautoattack().AutoAttack(model, norm=_NORM_NAMES[norm], eps=eps, version=version, device=device)
    _suit_classes(whole, model.num_classes)
    if component == "apgd-t":
        return whole.apgd_targeted
    if component == "square":
        return whole.square
    if component in ("apgd-ce", "apgd-dlr"):
        whole.apgd.loss = component.removeprefix("apgd-")
        return whole.apgd
    whole.fab.targeted = component == "fab-t"
    if whole.fab.targeted:
        whole.fab.n_restarts = 1
    return whole.fab


def _set_effort(attack: Any, iterations: int | None, queries: int | None) -> None:
    if queries is not None and hasattr(attack, "n_queries"):
        attack.n_queries = queries
    if iterations is None or not hasattr(attack, "n_iter"):
        return
    attack.n_iter = iterations
    if hasattr(attack, "n_iter_orig"):
        attack.n_iter_orig = iterations
        attack.n_iter_2 = max(int(0.22 * iterations), 1)
        attack.n_iter_min = max(int(0.06 * iterations), 1)
        attack.size_decr = max(int(0.03 * iterations), 1)


def _suit_classes(attack: Any, num_classes: int) -> None:
    """No more targets than there are classes, and losses for two and three classes."""
    for targeted in (attack.apgd_targeted, attack.fab):
        targeted.n_target_classes = min(targeted.n_target_classes, num_classes - 1)
    if num_classes < 3:
        attack.apgd.dlr_loss = dlr
    if num_classes < 4:
        apgd = attack.apgd_targeted
        apgd.dlr_loss_targeted = lambda logits, labels: targeted_dlr(logits, labels, apgd.y_target)
