"""The one place that knows pyautoattack: its versions' components, as AutoAttack configures them.

Source: Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks", ICML 2020; L1: Croce and Hein, "Mind the box", ICML 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, get_args

import torch
from torch import nn

from bench.attacks.losses import dlr, targeted_dlr
from bench.core.errors import BenchError
from bench.core.threat import Norm

Component = Literal["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"]
Version = Literal["standard", "plus", "rand"]
COMPONENTS: tuple[Component, ...] = get_args(Component)
_NORM_NAMES: dict[Norm, str] = {"linf": "Linf", "l2": "L2", "l1": "L1"}


@dataclass(frozen=True, slots=True)
class AutoAttackSettings:
    """AutoAttack at one radius.

    Attributes:
        version: `standard`, `plus` or `rand`, which decide components and their settings.
        iterations: steps of APGD and FAB; None for the version's 100.
        queries: queries of Square; None for the version's 5000.
        patient: spend all steps and queries on what stands, also where FAB-T and Square would give up; so does `plus`.
        seed: keys the components' noise, together with component, norm, radius and example id.
    """

    norm: Norm
    eps: float
    version: Version = "standard"
    iterations: int | None = None
    queries: int | None = None
    seed: int = 0
    patient: bool = False


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


def components_of(version: Version, norm: Norm) -> tuple[Component, ...]:
    """The components that a version runs, in their order."""
    attack = import_pyautoattack().AutoAttack(nn.Identity(), norm=_NORM_NAMES[norm], eps=1.0, version=version)
    return tuple(attack.attacks_to_run)


def component_of(
    component: Component, model: nn.Module, num_classes: int, settings: AutoAttackSettings, device: torch.device
) -> Any:
    """The component object as AutoAttack configures it for the version, with as many targets as there are classes."""
    attack = import_pyautoattack().AutoAttack(
        model, norm=_NORM_NAMES[settings.norm], eps=settings.eps, version=settings.version, device=device
    )
    _set_effort(attack, settings)
    _suit_classes(attack, num_classes)
    if component == "apgd-t":
        return attack.apgd_targeted
    if component == "square":
        return attack.square
    if component in ("apgd-ce", "apgd-dlr"):
        attack.apgd.loss = component.removeprefix("apgd-")
        return attack.apgd
    attack.fab.targeted = component == "fab-t"
    if attack.fab.targeted:
        attack.fab.n_restarts = 1
    return attack.fab


def _set_effort(attack: Any, settings: AutoAttackSettings) -> None:
    if settings.iterations is not None:
        attack.fab.n_iter = settings.iterations
        for apgd in (attack.apgd, attack.apgd_targeted):
            _set_iterations(apgd, settings.iterations)
    if settings.queries is not None:
        attack.square.n_queries = settings.queries


def _suit_classes(attack: Any, num_classes: int) -> None:
    """No more targets than there are classes, and losses for two and three classes."""
    for targeted in (attack.apgd_targeted, attack.fab):
        targeted.n_target_classes = min(targeted.n_target_classes, num_classes - 1)
    if num_classes < 3:
        attack.apgd.dlr_loss = dlr
    if num_classes < 4:
        apgd = attack.apgd_targeted
        apgd.dlr_loss_targeted = lambda logits, labels: targeted_dlr(logits, labels, apgd.y_target)


def _set_iterations(apgd: Any, iterations: int) -> None:
    apgd.n_iter = apgd.n_iter_orig = iterations
    apgd.n_iter_2 = max(int(0.22 * iterations), 1)
    apgd.n_iter_min = max(int(0.06 * iterations), 1)
    apgd.size_decr = max(int(0.03 * iterations), 1)
